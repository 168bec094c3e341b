"""Units whose style comes from a LoRA: the merged weights of the routed blocks, beside other units, and out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import SDXL_BLOCKS
from lib_instantstyle.units.errors import (
    CheckpointError,
    IncompatibleModelError,
    InstantStyleError,
    LoraNotFoundError,
    StyleNotAppliedError,
    UnitError,
    UnknownBlockError,
)
from lib_instantstyle.units.unit import StyleUnit

from ..jobs import LAYOUT, STYLE, hooked_layers, run
from ..jobs import unit as pictured
from ..tiny import TinyHost, picture, sdxl_unet
from ..tiny.loras import Pairs, linear_paths, tiny_pairs, write_lora

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order carried through a UNet
ROWS = (False, True)
PROJECTIONS = ("proj_in", "proj_out")


@pytest.fixture
def pairs() -> Pairs:
    """For every linear layer of every cross-attention block."""
    unet = sdxl_unet()
    return tiny_pairs(unet, linear_paths(unet, *SDXL_BLOCKS))


@pytest.fixture(autouse=True)
def folder(host: TinyHost, tmp_path: Path, pairs: Pairs) -> Path:
    """The LoRA folder: `all`, `style` and `layout`, one of them below a folder."""
    made = tmp_path / "Lora"
    (made / "below").mkdir(parents=True)
    write_lora(made / "all.safetensors", pairs)
    for name, block in (("below/style", STYLE), ("layout", LAYOUT)):
        write_lora(made / f"{name}.safetensors", inside(pairs, block), "diffusers")
    host.files.lora_folders = lambda: [made]
    host.files.__post_init__()
    return made


def inside(pairs: Pairs, *blocks: str) -> Pairs:
    return {path: pair for path, pair in pairs.items() if any(path.startswith(f"{block}.") for block in blocks)}


def unit(lora: str = "all", **fields: Any) -> StyleUnit:
    return StyleUnit(method="lora", lora=lora, **fields)


def attach(session: StyleSession, *units: StyleUnit, progress: float = 0.5) -> None:
    session.attach(session.plan(units))
    session.call.start()
    session.call.progress = progress
    session.call.begin(ROWS, len(ROWS))


def merged(pairs: Pairs, scale: float = 1.0) -> nn.Module:
    unet = sdxl_unet()
    for path, (down, up) in pairs.items():
        unet.get_submodule(path).weight.data += scale * up @ down
    return unet


def styled(session: StyleSession, *units: StyleUnit, progress: float = 0.5) -> Tensor:
    attach(session, *units, progress=progress)
    found = run(session.host.unet())
    session.call.end()
    return found


def test_it_is_the_merged_weights_of_the_style_block(session: StyleSession, pairs: Pairs) -> None:
    expected = run(merged(inside(pairs, STYLE), 0.6))
    torch.testing.assert_close(styled(session, unit(weight=0.6)), expected, **CLOSE)
    assert (expected - run(session.host.unet())).abs().max() > 0  # that of a UNet whose hooks are still in


def test_original_is_the_whole_file_merged(session: StyleSession, pairs: Pairs) -> None:
    torch.testing.assert_close(styled(session, unit(preset="original", weight=0.4)), run(merged(pairs, 0.4)), **CLOSE)


def test_a_layout_weight_is_the_layout_blocks(session: StyleSession, pairs: Pairs) -> None:
    expected = merged(inside(pairs, STYLE), 0.5)
    for path, (down, up) in inside(pairs, LAYOUT).items():
        expected.get_submodule(path).weight.data += 0.3 * up @ down
    found = styled(session, unit(preset="style_and_layout", weight=0.5, layout_weight=0.3))
    torch.testing.assert_close(found, run(expected), **CLOSE)


def test_a_blocks_own_projections_act_where_all_its_layers_have_one_scale(session: StyleSession, pairs: Pairs) -> None:
    layer = f"{STYLE}.transformer_blocks.0"
    blocks = ((STYLE, 1.0), (layer, 0.2))
    expected = merged({path: pair for path, pair in inside(pairs, STYLE).items() if ".transformer" in path})
    for path, (down, up) in inside(pairs, layer).items():
        expected.get_submodule(path).weight.data -= 0.8 * up @ down
    found = styled(session, unit(preset="custom", blocks=blocks))
    torch.testing.assert_close(found, run(expected), **CLOSE)
    one = merged(inside(pairs, layer), 0.7)
    found = styled(session, unit(preset="custom", blocks=((layer, 0.7),)))
    torch.testing.assert_close(found, run(one), **CLOSE)


@pytest.mark.parametrize("weight", [-1.0, 0.5, 2.0])
def test_weights_are_linear_in_one_layer(session: StyleSession, weight: float) -> None:
    plan, one = session.plan([unit(weight=weight), unit()])
    assert plan.scales == {target: weight * scale for target, scale in one.scales.items()}


def test_the_order_of_units_of_both_sources_does_not_matter(session: StyleSession) -> None:
    units = [unit("style"), pictured(preset="original"), unit("layout", preset="layout", weight=0.4)]
    found = [styled(session, *order) for order in (units, units[::-1])]
    torch.testing.assert_close(*found, **CLOSE)


def test_beside_an_adapter_it_is_the_adapter_on_the_merged_weights(
    session: StyleSession, pairs: Pairs, world: Path, tmp_path: Path
) -> None:
    """The reference's attention is asked with the query that the LoRA has changed."""
    found = styled(session, pictured(preset="original"), unit(weight=0.6))
    other = StyleSession(TinyHost(merged(inside(pairs, STYLE), 0.6), world, tmp_path / "other"))
    torch.testing.assert_close(found, styled(other, pictured(preset="original")), **CLOSE)


def test_afterwards_nothing_is_left(session: StyleSession, host: TinyHost) -> None:
    before = run(host.unet())
    assert not torch.equal(styled(session, unit(), pictured()), before)
    session.detach()
    assert torch.equal(run(host.unet()), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in host.unet().modules())
    assert not session.call.adapted


def test_weight_zero_puts_no_hook_in(session: StyleSession, host: TinyHost) -> None:
    before = run(host.unet())
    session.attach(session.plan([unit(weight=0.0)]))
    assert (session.attached_to, hooked_layers(host.unet())) == (None, [])
    assert torch.equal(run(host.unet()), before)


def test_curve_and_window_hold(session: StyleSession, host: TinyHost, pairs: Pairs) -> None:
    before = run(host.unet())
    half = run(merged(inside(pairs, STYLE), 0.5))
    torch.testing.assert_close(styled(session, unit(curve="fade_in")), half, **CLOSE)
    assert torch.equal(styled(session, unit(start=0.6)), before)
    torch.testing.assert_close(styled(session, unit(weight=0.5, end=0.6)), half, **CLOSE)


def test_a_job_of_a_lora_alone_counts_as_styled(session: StyleSession) -> None:
    styled(session, unit())
    assert session.call.due == 1
    assert session.call.styled > 0


@pytest.mark.parametrize("beside", [[], [pictured()]], ids=["alone", "beside an adapter"])
def test_a_layer_that_something_goes_past_is_an_error(session: StyleSession, beside: list[StyleUnit]) -> None:
    attach(session, unit(), *beside)
    attention = session.host.unet().get_submodule(f"{STYLE}.transformer_blocks.0.attn1")
    kept, attention.to_q = attention.to_q, nn.Linear(*reversed(attention.to_q.weight.shape), bias=False)
    try:
        run(session.host.unet())
    finally:
        attention.to_q = kept
    with pytest.raises(StyleNotAppliedError, match="1 of"):
        session.call.end()


def test_the_plan_says_what_was_chosen_and_reads_no_tensor(session: StyleSession, host: TinyHost) -> None:
    (plan,) = session.plan([unit("style.safetensors")])
    assert (plan.described.lora, plan.number, plan.all_pictures, host.encoder_loads) == ("style", 1, (), 0)


REFUSED: list[tuple[dict[str, Any], type[InstantStyleError], str]] = [
    ({"lora": ""}, UnitError, "lora"),
    ({"lora": "nothing"}, LoraNotFoundError, "lora"),
    ({"lora": "below/style"}, LoraNotFoundError, "lora"),
    ({"lora": "/etc/passwd"}, LoraNotFoundError, "lora"),
    ({"lora": "broken"}, CheckpointError, "lora"),
    ({"lora": "other"}, IncompatibleModelError, "lora"),
    ({"lora": "layout"}, UnknownBlockError, "preset"),
    ({"lora": "layout", "weight": 0.0}, UnknownBlockError, "preset"),
    ({"method": "adapter", "image": (picture(),)}, UnitError, "lora"),
    ({"preset": "custom", "blocks": (("up_blocks.9", 1.0),)}, UnknownBlockError, "blocks"),
    ({"preset": "style_precise"}, UnitError, "preset"),
    ({"image": (picture(),)}, UnitError, "image"),
    ({"adapter": "base"}, UnitError, "adapter"),
    ({"fusion": "adain"}, UnitError, "fusion"),
    ({"kv_scaling": "kv"}, UnitError, "kv_scaling"),
    ({"content_prompt": "a rabbit"}, UnitError, "content_prompt"),
    ({"content_scale": 1.0}, UnitError, "content_scale"),
    ({"content_method": "auto"}, UnitError, "content_method"),
    ({"content_renorm": True}, UnitError, "content_renorm"),
    ({"content_image": (picture(),)}, UnitError, "content_image"),
    ({"negative_image": (picture(),)}, UnitError, "negative_image"),
]


@pytest.mark.parametrize(("fields", "kind", "field"), REFUSED, ids=[str(one[0])[:40] for one in REFUSED])
def test_what_cannot_be_is_refused_by_name(
    session: StyleSession, folder: Path, pairs: Pairs, fields: dict[str, Any], kind: type, field: str
) -> None:
    (folder / "broken.safetensors").write_bytes(b"no file of tensors")
    write_lora(folder / "other.safetensors", {path: (down[:, 1:], up) for path, (down, up) in pairs.items()})
    with pytest.raises(kind) as caught:
        session.plan([pictured(), StyleUnit(**{"method": "lora", "lora": "all", **fields})])
    assert (type(caught.value), caught.value.unit, caught.value.field) == (kind, 2, field)
    assert str(folder.parent) not in str(caught.value)


def test_refusals_say_the_sizes_the_blocks_and_names_that_are_near(
    session: StyleSession, folder: Path, pairs: Pairs
) -> None:
    write_lora(folder / "deep.safetensors", {path: (down[:, 1:], up) for path, (down, up) in pairs.items()})
    with pytest.raises(IncompatibleModelError, match=r"deep\.safetensors .* at up_blocks.* it has \d+×\d+, .* \d+×\d+"):
        session.plan([unit("deep")])
    with pytest.raises(
        UnknownBlockError, match=rf"layout\.safetensors contains nothing for {STYLE}, only for {LAYOUT}"
    ):
        session.plan([unit("layout")])
    with pytest.raises(LoraNotFoundError, match=r"Did you mean style.*models/Lora") as caught:
        session.plan([unit("styel")])
    assert caught.value.status_code == 404


def test_a_layer_the_checkpoint_has_not_is_named(session: StyleSession, folder: Path, pairs: Pairs) -> None:
    deeper = {path.replace("transformer_blocks.0", "transformer_blocks.9"): pair for path, pair in pairs.items()}
    write_lora(folder / "deep.safetensors", deeper)
    with pytest.raises(IncompatibleModelError, match="the checkpoint no such layer"):
        session.plan([unit("deep")])


def test_a_file_that_changed_after_the_plan_is_refused(session: StyleSession, folder: Path) -> None:
    plans = session.plan([pictured(), unit("layout", preset="layout")])
    (folder / "layout.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"layout\.safetensors") as caught:
        session.attach(plans)
    assert caught.value.unit == 2
    session.detach()
    assert session.attached_to is None


def test_another_checkpoint_is_looked_at_again(session: StyleSession, host: TinyHost) -> None:
    plans = session.plan([unit()])
    narrow = host.unet().get_submodule(f"{STYLE}.transformer_blocks.0.attn1")
    narrow.to_q = nn.Linear(3, 3)
    with pytest.raises(IncompatibleModelError, match="3×3"):
        session.attach(plans)
