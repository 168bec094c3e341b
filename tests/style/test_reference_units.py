"""Units whose reference is looked at by self-attention: the formulas, on a UNet whose batch holds the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor, nn

from lib_instantstyle.style.reference_pass import SEED, noised_latent
from lib_instantstyle.style.self_attention import Attending, PooledNorm, ReferenceRows, ReferredLayer
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import SDXL_BLOCKS
from lib_instantstyle.units.errors import InstantStyleError, StyleNotAppliedError, UnitError, UnknownBlockError
from lib_instantstyle.units.schedule import Window
from lib_instantstyle.units.unit import StyleUnit

from ..jobs import STYLE
from ..jobs import unit as pictured
from ..tiny import TinyHost, picture, sdxl_unet
from .test_self_attention import JOB, WrittenOut, attn1_of, inputs, some

CLOSE = {"rtol": 1e-4, "atol": 1e-6}
PROGRESS = 0.5
LAST = "up_blocks.1."  # Visual Style Prompting's layers
OWN_TEXT = [0, 1, 2, 3, 2, 0]  # whose text each row has: the job's four, the reference's unconditional and conditional


@pytest.fixture
def session(host: TinyHost) -> StyleSession:
    host.live_unet = sdxl_unet().double()
    return StyleSession(host)


def unit(method: str = "swapped", **fields: Any) -> StyleUnit:
    return StyleUnit(method=method, image=(picture(3),), **fields)


def job(rows: Sequence[int] = range(4)) -> dict[str, Any]:
    return {name: _rows(value, rows) for name, value in inputs(4).items()}


def _rows(value: Any, rows: Sequence[int]) -> Any:
    if isinstance(value, dict):
        return {name: _rows(one, rows) for name, one in value.items()}
    return value[list(rows)] if isinstance(value, Tensor) and value.dim() else value


@torch.no_grad()
def styled(session: StyleSession, *units: StyleUnit, calls: Sequence[Sequence[int]] = (range(4),)) -> Tensor:
    """The rows of a step, however it is cut into calls."""
    session.attach(session.plan(units))
    session.call.start()
    session.call.progress = PROGRESS
    made = {}
    for rows in calls:
        session.call.begin([JOB[row] for row in rows], len(rows))
        made |= dict(zip(rows, session.host.unet()(**job(rows)).sample))
    session.call.end()
    session.detach()
    return torch.stack([made[row] for row in range(4)])


def with_reference(host: TinyHost) -> dict[str, Any]:
    """The job's rows and after them the reference's two: of each, its latent noised to the call's level."""
    every = {name: _rows(value, OWN_TEXT) for name, value in job().items()}
    size, level = every["sample"].shape[-2:], torch.as_tensor([float(every["timestep"])])
    noise = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(SEED + round(PROGRESS * 1e6)))
    noised = noised_latent(host.latent_of(picture(3), *size), noise, level, host.alphas_cumprod())
    every["sample"] = torch.cat([every["sample"][:4], noised.double().expand(2, -1, -1, -1)])
    return every


@torch.no_grad()
def written_out(host: TinyHost, how: dict[str, WrittenOut]) -> Tensor:
    """By attention processors with the formula, for the layers whose paths begin so."""
    unet = sdxl_unet().double()
    for path, module in unet.named_modules():
        found = next((one for start, one in how.items() if path.startswith(start)), None)
        if path.endswith("attn1") and found:
            module.set_processor(found)
    return unet(**with_reference(host)).sample[:4]


@pytest.mark.parametrize("weight", [1.0, 0.4, -0.5])
def test_swapping_is_the_formula_in_the_last_blocks(session: StyleSession, host: TinyHost, weight: float) -> None:
    expected = written_out(host, {LAST: WrittenOut("swapped", weight)})
    torch.testing.assert_close(styled(session, unit(weight=weight)), expected, **CLOSE)


def test_blocks_are_those_of_the_preset(session: StyleSession, host: TinyHost) -> None:
    expected = written_out(host, {STYLE: WrittenOut("swapped", 0.7)})
    found = styled(session, unit(preset="custom", blocks=((STYLE, 1.0),), weight=0.7))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_the_guard_gives_unconditional_rows_the_references_query(session: StyleSession, host: TinyHost) -> None:
    elsewhere = {"": WrittenOut("query", 1.0, (False,))}
    expected = written_out(host, {LAST: WrittenOut("swapped", 1.0, (True,)), **elsewhere})
    torch.testing.assert_close(styled(session, unit(leak_guard=True)), expected, **CLOSE)


@torch.no_grad()
def test_sharing_is_in_every_layer_and_every_norm(session: StyleSession, host: TinyHost) -> None:
    unet, reference = sdxl_unet().double(), ReferenceRows((False, True))
    units, call = (Attending("shared", 1.0, Window(), reference),), session.call
    norms = [PooledNorm(one, units, call) for one in unet.modules() if isinstance(one, nn.GroupNorm)]
    every = with_reference(host)
    with hooked([*norms, *(ReferredLayer(attn1, units, call) for attn1 in attn1_of(unet))]):
        call.cond_rows, reference.writing = None, True
        unet(**some(every, slice(4, 6)))
        call.cond_rows, reference.writing = JOB, False
        expected = unet(**some(every, slice(0, 4))).sample
    torch.testing.assert_close(styled(session, unit("shared")), expected, **CLOSE)


@contextmanager
def hooked(layers: list[Any]) -> Iterator[None]:
    for layer in layers:
        layer.attach()
    yield
    for layer in layers:
        layer.detach()


CUTS = [[(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0,), (1,), (2,), (3,)]]


@pytest.mark.parametrize("calls", CUTS, ids=["halves", "pictures", "rows"])
@pytest.mark.parametrize("method", ["shared", "swapped"])
def test_however_a_step_is_cut_into_calls(session: StyleSession, method: str, calls: list[tuple[int, ...]]) -> None:
    same_text = [0, 0, 2, 2]  # the reference has the text of the first row of each half
    whole = styled(session, unit(method))
    cut = styled(session, unit(method), calls=calls)
    kept = [row for row in range(4) if all(same_text[row] in rows or row not in rows for rows in calls)]
    assert kept
    torch.testing.assert_close(cut[kept], whole[kept], **CLOSE)


@pytest.mark.parametrize("method", ["shared", "swapped"])
def test_weight_zero_changes_no_bit_and_afterwards_nothing_is_left(session: StyleSession, method: str) -> None:
    unet = session.host.unet()
    with torch.no_grad():
        before = unet(**job()).sample
    assert torch.equal(styled(session, unit(method, weight=0.0)), before)
    assert not torch.equal(styled(session, unit(method)), before)
    with torch.no_grad():
        assert torch.equal(unet(**job()).sample, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())


def test_curve_and_window_hold(session: StyleSession, host: TinyHost) -> None:
    half = written_out(host, {LAST: WrittenOut("swapped", 0.5)})
    torch.testing.assert_close(styled(session, unit(curve="fade_in")), half, **CLOSE)
    with torch.no_grad():
        assert torch.equal(styled(session, unit(start=0.6)), session.host.unet()(**job()).sample)


def test_units_of_all_methods_add_up_in_any_order(session: StyleSession) -> None:
    units = [unit(weight=0.5), pictured(preset="original"), unit("shared", weight=0.3, preset="layout")]
    found = [styled(session, *order) for order in (units, units[::-1])]
    torch.testing.assert_close(*found, **CLOSE)
    alone = [styled(session, one) for one in units]
    assert not any(torch.allclose(found[0], one) for one in alone)


def test_without_a_picture_the_first_of_the_batch_leads_and_stays_as_it_is(session: StyleSession) -> None:
    found = styled(session, StyleUnit(method="shared"))
    with torch.no_grad():
        plain = session.host.unet()(**job()).sample
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]], **CLOSE)
    assert not any(torch.allclose(found[row], plain[row], rtol=1e-3) for row in (1, 3))


def test_without_a_picture_a_batch_of_one_is_refused(session: StyleSession) -> None:
    with pytest.raises(StyleNotAppliedError, match="raise the batch size"):
        styled(session, StyleUnit(method="shared"), calls=[(0, 2)])
    session.detach()


def test_the_latent_is_made_once_for_each_size(session: StyleSession, host: TinyHost) -> None:
    plans = session.plan([unit()])
    for _ in range(2):
        session.attach(plans)
        session.call.start()
        session.call.begin(JOB, 4)
        with torch.no_grad():
            session.host.unet()(**job())
    assert host.latents == 1


@torch.no_grad()
def test_a_layer_called_for_tiles_ends_the_job(session: StyleSession) -> None:
    session.attach(session.plan([unit()]))
    session.call.begin(JOB, 4)
    attn1 = session.host.unet().get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn1")
    with pytest.raises(StyleNotAppliedError, match=r"16 rows; the model call has 4.*Hypertile"):
        attn1(torch.zeros(16, 9, attn1.to_q.in_features).double())


@torch.no_grad()
def test_a_checkpoint_for_inpainting_is_refused(session: StyleSession, host: TinyHost) -> None:
    session.attach(session.plan([unit()]))
    session.call.begin(JOB, 4)
    given = job()
    with pytest.raises(StyleNotAppliedError, match="takes 9 channels"):
        host.unet()(**{**given, "sample": torch.cat([given["sample"]] * 3, 1)[:, :9]})


REFUSED: list[tuple[dict[str, Any], type[InstantStyleError], str]] = [
    ({"image": (picture(), picture(1))}, UnitError, "image"),
    ({"adapter": "base"}, UnitError, "adapter"),
    ({"lora": "ink"}, UnitError, "lora"),
    ({"fusion": "adain"}, UnitError, "fusion"),
    ({"kv_scaling": "kv"}, UnitError, "kv_scaling"),
    ({"content_prompt": "a rabbit"}, UnitError, "content_prompt"),
    ({"negative_image": (picture(),)}, UnitError, "negative_image"),
    ({"preset": "style_precise"}, UnitError, "preset"),
    ({"preset": "custom", "blocks": (("up_blocks.9", 1.0),)}, UnknownBlockError, "blocks"),
]


@pytest.mark.parametrize("method", ["shared", "swapped"])
@pytest.mark.parametrize(("fields", "kind", "field"), REFUSED, ids=[str(one[0])[:40] for one in REFUSED])
def test_what_means_nothing_is_refused_by_name(
    session: StyleSession, method: str, fields: dict[str, Any], kind: type, field: str
) -> None:
    with pytest.raises(kind) as caught:
        session.plan([pictured(), StyleUnit(**{"method": method, "image": (picture(),), **fields})])
    assert (caught.value.unit, caught.value.field) == (2, field)


def test_swapping_takes_a_picture(session: StyleSession) -> None:
    with pytest.raises(UnitError, match="needs a picture"):
        session.plan([StyleUnit(method="swapped")])


def test_the_guard_goes_with_swapping_only(session: StyleSession) -> None:
    for other in (unit("shared", leak_guard=True), pictured(leak_guard=True)):
        with pytest.raises(UnitError) as caught:
            session.plan([other])
        assert caught.value.field == "leak_guard"


def test_no_adapter_and_no_encoder_is_asked_for(session: StyleSession, host: TinyHost) -> None:
    host.files.adapter_folders = host.files.encoder_folders = list
    host.files.__post_init__()
    (plan,) = session.plan([unit()])
    assert (plan.described.image, host.encoder_loads) == ((plan.all_pictures[0].hash,), 0)
    assert {layer.block for layer in plan.scales} == {block for block in SDXL_BLOCKS if block.startswith(LAST)}


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_the_reference_is_noised_as_a_scheduler_does_it(spacing: str) -> None:
    """linspace has timesteps that lie between two of the schedule's."""
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing=spacing
    )
    scheduler.set_timesteps(7)
    latent, noise = torch.randn(2, 1, 4, 8, 8).double()
    for timestep, sigma in zip(scheduler.timesteps, scheduler.sigmas):
        expected = (latent + sigma * noise) / (sigma**2 + 1) ** 0.5
        found = noised_latent(latent, noise, timestep[None].double(), scheduler.alphas_cumprod)
        torch.testing.assert_close(found, expected.double(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("fields", "runs"), [({}, 1), ({"leak_guard": True}, 1), ({"method": "shared"}, 2)])
def test_the_references_rows_end_with_the_last_layer_that_is_looked_at(
    session: StyleSession, fields: dict[str, Any], runs: int
) -> None:
    """Sharing looks at the last GroupNorm, which only a convolution follows."""
    ends: list[int] = []
    last = session.host.unet().up_blocks[2].resnets[-1]  # type: ignore[union-attr, index]
    handle = last.register_forward_hook(lambda module, args, output: ends.append(len(output)))
    styled(session, unit(**{"method": "swapped", **fields}))
    handle.remove()
    assert ends == [2, 4][-runs:]


@torch.no_grad()
@pytest.mark.parametrize("writing", [True, False])
def test_keys_that_another_extension_adds_end_the_job(session: StyleSession, writing: bool) -> None:
    """ControlNet's reference units do so, in the job's rows and, as they stand then, in the reference's."""
    session.attach(session.plan([unit()]))
    session.call.begin(JOB, 4)
    attn1 = session.host.unet().get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn1")
    (layer,) = (one for one in session._layers if isinstance(one, ReferredLayer) and one.module is attn1)
    reference = layer.units[0].reference
    reference.writing, layer._kept[id(reference)] = writing, dict.fromkeys(("to_k", "to_v"), torch.zeros(1))
    x = torch.zeros(4, 9, attn1.to_q.in_features).double()
    attn1.to_q(x)
    with pytest.raises(StyleNotAppliedError, match=r"given 18 keys for 9 queries.*ControlNet's reference units"):
        attn1.to_k(torch.cat([x, x], 1))
