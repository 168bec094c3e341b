"""The colours of a reference on the denoised latent: against AdaIN written out channel by channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_instantstyle.reference.plans import check_windows
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.errors import InstantStyleError, PictureError, StyleNotAppliedError, UnitError
from lib_instantstyle.units.unit import StyleUnit

from ..jobs import hooked_layers
from ..jobs import unit as pictured
from ..tiny import TinyHost, picture

SIZE = (6, 10)
LEFT = Image.fromarray(np.repeat([[255] * 5 + [0] * 5], 6, 0).astype(np.uint8))
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture
def session(host: TinyHost) -> StyleSession:
    return StyleSession(host)


def only(**fields: Any) -> StyleUnit:
    return StyleUnit(**{"method": "palette", "image": (picture(3),), **fields})


def latents(pictures: int = 2) -> Tensor:
    return 3 * torch.randn(pictures, 4, *SIZE, generator=torch.Generator().manual_seed(7)) + 1


def after(session: StyleSession, *units: StyleUnit, progress: float = 0.6, x: Tensor | None = None) -> Tensor:
    """What a step at `progress` ends in."""
    session.attach(session.plan(units))
    session.palette.start()
    session.call.progress = progress
    session.palette.expect()
    found = session.palette.apply(latents() if x is None else x)
    session.palette.check()
    session.detach()
    return found


def adain(x: Tensor, reference: Tensor, there: Tensor | None = None) -> Tensor:
    """Channel by channel, over the places that are there; the others stay."""
    x, reference, found = x.double(), reference.double(), x.double().clone()
    there = torch.ones(SIZE, dtype=torch.bool) if there is None else there
    for row in range(len(x)):
        for channel in range(x.shape[1]):
            own, theirs = x[row, channel][there], reference[0, channel]
            flat = (own - own.mean()) / own.std(unbiased=False)
            found[row, channel][there] = flat * theirs.std(unbiased=False) + theirs.mean()
    return found


def test_it_is_the_formula_in_every_channel(session: StyleSession, host: TinyHost) -> None:
    x, reference = latents(), host.latent_of(picture(3), *SIZE)
    for share in (1.0, 0.3):
        expected = x + share * (adain(x, reference) - x)
        torch.testing.assert_close(after(session, only(palette=share)), expected.float(), **CLOSE)
    torch.testing.assert_close(after(session, only()), adain(x, reference).float(), **CLOSE)


def test_a_faint_reference_is_taken_as_it_is(session: StyleSession, host: TinyHost) -> None:
    """Some autoencoders' latents hardly vary."""
    own = host.latent_of
    host.latent_of = lambda *given: own(*given) / 1000  # type: ignore[method-assign]
    found, reference = after(session, only()), host.latent_of(picture(3), *SIZE)
    torch.testing.assert_close(found.std((2, 3)), reference.std((2, 3)).expand(2, -1), rtol=1e-4, atol=0)


def test_the_reference_itself_is_unchanged(session: StyleSession, host: TinyHost) -> None:
    reference = host.latent_of(picture(3), *SIZE)
    torch.testing.assert_close(after(session, only(), x=reference), reference, **CLOSE)


@pytest.mark.parametrize(
    ("fields", "acting"),
    [({}, (0.5, 0.6, 0.79)), ({"start": 0.5}, (0.75, 0.89)), ({"end": 0.5}, (0.25, 0.39)), ({"palette": 0.0}, ())],
)
def test_between_half_and_four_fifths_of_its_window(
    session: StyleSession, fields: dict[str, float], acting: tuple[float, ...]
) -> None:
    places = (0.0, 0.24, 0.25, 0.39, 0.41, 0.49, 0.5, 0.6, 0.74, 0.75, 0.79, 0.81, 0.89, 0.91, 1.0)
    changed = [at for at in places if not torch.equal(after(session, only(**fields), progress=at), latents())]
    own = {0.25: 0.5 * 0.5, 0.75: 0.75}
    first, last = (acting[0], acting[-1]) if acting else (2.0, 2.0)
    assert changed == [at for at in places if first <= own.get(at, at) <= last]


def test_in_a_region_only_and_by_what_is_there(session: StyleSession, host: TinyHost) -> None:
    there = torch.zeros(SIZE, dtype=torch.bool)
    there[:, :5] = True
    found = after(session, only(mask=(LEFT,)))
    expected = adain(latents(), host.latent_of(picture(3), *SIZE), there)
    torch.testing.assert_close(found, expected.float(), **CLOSE)
    assert torch.equal(found[..., 5:], latents()[..., 5:])


def test_the_part_of_the_reference_that_counts(session: StyleSession, host: TinyHost) -> None:
    """Half of a picture by a mask is that half as a picture of its own, as far as colours go."""
    both = Image.new("RGB", (80, 48))
    both.paste(picture(3, size=(40, 48)), (0, 0))
    both.paste(picture(4, size=(40, 48)), (40, 0))
    masked = after(session, only(image=(both,), image_mask=(LEFT.resize((80, 48), Image.Resampling.NEAREST),)))
    reference = host.latent_of(both, *SIZE)[..., :5]
    torch.testing.assert_close(masked, adain(latents(), reference).float(), **CLOSE)


def test_several_pictures_are_their_mean_by_weight(session: StyleSession) -> None:
    one, other = (after(session, only(image=(picture(seed),))) for seed in (3, 4))
    found = after(session, only(image=(picture(3), picture(4)), image_weights=(3.0, 1.0)))
    torch.testing.assert_close(found, 0.75 * one + 0.25 * other, **CLOSE)


def test_units_add_up_in_any_order(session: StyleSession) -> None:
    units = [
        only(palette=0.3),
        pictured(palette=0.4, weight=0.0),
        StyleUnit(method="swapped", image=(picture(5),), palette=0.2),
    ]
    found = [after(session, *order) for order in (units, units[::-1])]
    torch.testing.assert_close(*found, **CLOSE)
    changes = sum(after(session, one) - latents() for one in units)
    torch.testing.assert_close(found[0] - latents(), changes, **CLOSE)


def test_nothing_but_the_checkpoint_is_needed_and_no_layer_is_touched(session: StyleSession, host: TinyHost) -> None:
    host.files.adapter_folders = host.files.encoder_folders = list
    host.files.__post_init__()
    session.attach(session.plan([only()]))
    assert (hooked_layers(host.unet()), host.encoder_loads) == ([], 0)
    session.detach()
    assert session.palette.units == ()


def test_the_latent_is_made_once_for_each_size(session: StyleSession, host: TinyHost) -> None:
    plans = session.plan([only()])
    for size in (SIZE, SIZE, (3, 5)):
        session.latent_size = size
        session.attach(plans)
    assert host.latents == 2


def test_a_step_that_is_passed_by_ends_the_job(session: StyleSession) -> None:
    session.attach(session.plan([only()]))
    session.call.progress = 0.6
    session.palette.expect()
    with pytest.raises(StyleNotAppliedError, match="colours did not reach"):
        session.palette.expect()
    session.palette.start()
    session.palette.check()


def test_numbers_of_a_flat_channel_stay_finite_and_half_stays_half(session: StyleSession) -> None:
    flat = after(session, only(), x=torch.zeros(1, 4, *SIZE).half())
    assert flat.dtype == torch.float16
    assert torch.isfinite(flat).all()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"method": "palette", "image": ()}, "image"),
    ({"method": "shared", "image": (), "palette": 0.5}, "palette"),
    ({"method": "lora", "image": (), "lora": "ink", "palette": 0.5}, "palette"),
    *(
        ({"method": "palette", **fields}, next(iter(fields)))
        for fields in (
            {"weight": 0.5},
            {"preset": "original"},
            {"adapter": "base"},
            {"curve": "fade_in"},
            {"content_prompt": "a cat"},
            {"leak_guard": True},
            {"crop": "pad"},
        )
    ),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED, ids=[str(one) for one in REFUSED])
def test_what_means_nothing_is_refused_by_name(session: StyleSession, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InstantStyleError) as caught:
        session.plan([StyleUnit(**{"image": (picture(),), **fields})])
    assert (caught.value.unit, caught.value.field) == (1, field)


def test_a_mask_of_which_nothing_is_left_is_refused(session: StyleSession) -> None:
    edge = Image.new("L", (100, 10))
    edge.paste(255, (0, 0, 2, 10))
    with pytest.raises(PictureError, match="Nothing of the part that counts") as caught:
        after(session, only(image=(picture(size=(100, 10)),), image_mask=(edge,)))
    assert caught.value.field == "image_mask"


def test_a_job_without_a_step_for_it_is_refused(session: StyleSession) -> None:
    plans = session.plan([only()])
    check_windows(plans, [2])
    with pytest.raises(UnitError, match="none of the job's 1 model calls") as caught:
        check_windows(plans, [1])
    assert caught.value.field == "palette"
