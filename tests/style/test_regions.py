"""Styles in regions of a picture, against the formulas written out: alone, and with what else a unit can ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.fusions import guided
from lib_instantstyle.style.key_values import ImageKeyValue
from lib_instantstyle.style.regions import WHOLE, Part, Place, Region
from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.units.curves import Curve
from lib_instantstyle.units.errors import StyleNotAppliedError

from .styled import CLOSE, CONTEXT, ROWS, WIDTH, attend, unit

HALFWAY = 0.5
LATENT = (11, 14)  # odd sizes: the layer's grid is half of it, rounded up
GRID = (6, 7)
PLACES = GRID[0] * GRID[1]
MASK = torch.rand(1, 1, 66, 42, generator=torch.Generator().manual_seed(5))
LEFT = torch.zeros(1, 1, 12, 14).index_fill(3, torch.arange(7), 1.0)


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(rows)
    return torch.randn(rows, PLACES, WIDTH, generator=made), torch.randn(rows, 7, CONTEXT, generator=made)


@contextmanager
def attached(
    attn2: nn.Module, *units: ImageKeyValue, rows: Sequence[bool] = ROWS, size: Any = LATENT, **told: Any
) -> Iterator[ModelCall]:
    call = ModelCall(progress=HALFWAY, **told)
    call.begin(rows, len(rows), size)
    layer = StyledLayer(attn2, units, call)
    layer.attach()
    try:
        yield call
    finally:
        layer.detach()


def shares(mask: Tensor) -> Tensor:
    """Each place's mean of the mask: (1, places, 1). The masks of these tests are multiples of the grid in size."""
    height, width = mask.shape[2] // GRID[0], mask.shape[3] // GRID[1]
    return functional.avg_pool2d(mask, (height, width)).reshape(1, -1, 1)


def written_out(attn2: Any, x: Tensor, context: Tensor, units: Sequence[ImageKeyValue], rows: list[int]) -> Tensor:
    """to_out(H + Σ w · m · S), or with adain H + Σ w · m · (AdaIN(H, S) − H); guided away from no condition's."""
    query = attn2.to_q(x)
    hidden = attend(query, attn2.to_k(context), attn2.to_v(context), attn2.heads)

    def term(one: ImageKeyValue, rows: list[int]) -> Tensor:
        weight = one.scale * {"fade_in": 0.5, "ease_in": 0.25}.get(one.curve.name, 1.0)
        key = one.key * weight if one.scaling == "kv" else one.key
        added = attend(query, key[rows], one.value[rows], attn2.heads)
        if one.fusion == "adain":
            flat = (hidden - hidden.mean(1, keepdim=True)) / (hidden.std(1, keepdim=True) + 1e-5)
            added = flat * added.std(1, keepdim=True) + added.mean(1, keepdim=True) - hidden
        added = weight * added * (shares(one.region.mask) if one.region else 1.0)
        if not one.guidance or rows == [0] * len(rows):
            return added
        return guided(hidden + added, hidden + term(one, [0] * len(rows)), one.guidance) - hidden

    return attn2.to_out[0](hidden + sum(term(one, rows) for one in units))  # type: ignore[no-any-return]


def within(one: ImageKeyValue, mask: Tensor = MASK) -> ImageKeyValue:
    return replace(one, region=Region(mask))


PLAIN = within(unit(scale=0.8))
ADAIN = within(replace(unit(scale=0.6, seed=1), fusion="adain"), LEFT)
FADING = within(replace(unit(scale=0.9, seed=2, tokens=16), curve=Curve("fade_in")))
EVERYTHING = within(replace(unit(scale=1.1, seed=3), fusion="adain", curve=Curve("ease_in")))
KEYS = within(replace(unit(scale=1.5, seed=4), scaling="kv"), 1 - LEFT)
PUSHING = within(unit(seed=5)).pushing(0.3)
GUIDED = replace(unit(seed=7), guidance=2.0)
GUIDED_ADAIN = replace(EVERYTHING, guidance=4.0)
GUIDED_PUSHING = replace(PUSHING, guidance=3.0)
CASES = [
    [PLAIN],
    [ADAIN],
    [FADING],
    [EVERYTHING],
    [KEYS],
    [PUSHING],
    [PLAIN, unit(seed=6)],
    [PLAIN, within(unit(seed=6), 1 - MASK)],
    [GUIDED],
    [GUIDED_ADAIN],
    [GUIDED_PUSHING],
    [ADAIN, FADING, EVERYTHING, KEYS, PUSHING, GUIDED, GUIDED_ADAIN, unit(seed=6)],
]


@pytest.mark.parametrize("units", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("rows", [(True,), (True, True, True, False, False, False)], ids=len)
@torch.no_grad()
def test_a_layer_equals_the_formula(attn2: nn.Module, units: list[ImageKeyValue], rows: tuple[bool, ...]) -> None:
    x, context = inputs(len(rows))
    with attached(attn2, *units, rows=rows):
        styled = attn2(x, context)
    torch.testing.assert_close(styled, written_out(attn2, x, context, units, [int(row) for row in rows]), **CLOSE)


@torch.no_grad()
def test_outside_its_region_a_style_changes_no_bit(attn2: nn.Module) -> None:
    x, context = inputs(2)
    plain = attn2(x, context)
    faded, led = (replace(unit(), curve=Curve("fade_in")), GUIDED)
    for one in (within(unit(), LEFT), within(faded, LEFT), within(led, LEFT)):
        with attached(attn2, one):
            changed = (attn2(x, context) != plain).any(-1).reshape(2, *GRID)
        assert changed[..., :4].all()
        assert not changed[..., 4:].any()


@torch.no_grad()
def test_a_white_mask_is_no_mask(attn2: nn.Module) -> None:
    x, context = inputs(2)
    for one in (unit(), replace(unit(), fusion="adain")):
        with attached(attn2, one):
            everywhere = attn2(x, context)
        with attached(attn2, within(one, torch.ones(1, 1, 5, 9))):
            torch.testing.assert_close(attn2(x, context), everywhere, **CLOSE)


@torch.no_grad()
def test_regions_that_add_up_to_everywhere_are_everywhere(attn2: nn.Module) -> None:
    x, context = inputs(2)
    with attached(attn2, unit()):
        everywhere = attn2(x, context)
    with attached(attn2, within(unit(), MASK), within(unit(), 1 - MASK)):
        torch.testing.assert_close(attn2(x, context), everywhere, **CLOSE)


SIZES = [(6, 7), (7, 6)]


@torch.no_grad()
def test_the_grid_follows_the_size_of_each_pass(attn2: Any) -> None:
    """As in the hires pass, whose positions may be as many in another shape."""
    x, context = inputs(2)
    query = attn2.to_q(x)
    hidden = attend(query, attn2.to_k(context), attn2.to_v(context), attn2.heads)
    style = attend(query, PLAIN.key[[0, 1]], PLAIN.value[[0, 1]], attn2.heads)
    factors = [functional.interpolate(MASK, size, mode="area").reshape(1, -1, 1) for size in SIZES]
    expected = [attn2.to_out[0](hidden + 0.8 * factor * style) for factor in factors]
    with attached(attn2, PLAIN) as call:
        for size, one in zip(SIZES, expected):
            call.begin(ROWS, 2, size)
            torch.testing.assert_close(attn2(x, context), one, **CLOSE)
    assert not torch.allclose(*expected)


TOLD = [
    ({"whole": (22, 28)}, LATENT, r"14×11 of a picture of 28×22"),
    ({}, None, "unknown size"),
    ({}, (9, 9), "no grid of 9×9"),
]


@pytest.mark.parametrize(("told", "size", "cause"), TOLD)
@torch.no_grad()
def test_a_layer_whose_place_in_the_picture_is_not_known_is_refused(
    attn2: nn.Module, told: dict[str, Any], size: Any, cause: str
) -> None:
    x, context = inputs(2)
    with attached(attn2, PLAIN, size=size, **told), pytest.raises(StyleNotAppliedError, match=cause):
        attn2(x, context)
    with attached(attn2, unit(), size=size, **told):  # without a region nobody needs to know
        attn2(x, context)


PARTS: list[tuple[Part, tuple[slice, slice]]] = [
    (WHOLE, (slice(0, 8), slice(0, 12))),
    ((0.5, 0.0, 1.0, 1.0), (slice(0, 8), slice(6, 12))),
    ((0.25, 0.5, 0.75, 1.0), (slice(4, 8), slice(3, 9))),
    ((0.999, 0.999, 1.0, 1.0), (slice(7, 8), slice(11, 12))),
]


@pytest.mark.parametrize(("part", "shown"), PARTS)
def test_of_a_part_of_the_picture_the_same_part_of_the_mask_counts(part: Part, shown: tuple[slice, slice]) -> None:
    mask = torch.rand(1, 1, 8, 12)
    found = Region(mask).on(Place((4, 6), part))
    cut = mask[..., shown[0], shown[1]]
    torch.testing.assert_close(found, functional.interpolate(cut, (4, 6), mode="area").flatten(1)[..., None])


@torch.no_grad()
def test_guidance_leaves_unconditional_rows_as_they_are_and_acts_without_any(attn2: nn.Module) -> None:
    x, context = inputs(2)
    with attached(attn2, unit(seed=7)):
        unguided = attn2(x, context)
    with attached(attn2, GUIDED):
        led = attn2(x, context)
    torch.testing.assert_close(led[0], unguided[0], **CLOSE)
    with attached(attn2, GUIDED, rows=(True, True)):
        alone = attn2(x, context)
    torch.testing.assert_close(alone[1], led[1], **CLOSE)
    assert not torch.allclose(led[1], unguided[1], atol=0.01)


@torch.no_grad()
def test_what_is_turned_round_acts_without_unconditional_rows_only_when_guided(attn2: nn.Module) -> None:
    x, context = inputs(2)
    plain = attn2(x, context)
    for one, acts in ((PUSHING, False), (GUIDED_PUSHING, True)):
        with attached(attn2, one, rows=(True, True)):
            assert torch.allclose(attn2(x, context), plain) != acts


def test_a_picture_is_a_region_by_its_greys() -> None:
    picture = Image.new("RGB", (4, 2), "black")
    picture.putpixel((3, 1), (255, 255, 255))
    picture.putpixel((0, 0), (51, 51, 51))
    mask = Region.of(picture).mask
    assert mask.shape == (1, 1, 2, 4)
    assert mask[0, 0].tolist() == [[pytest.approx(0.2), 0, 0, 0], [0, 0, 0, 1]]


def test_a_huge_mask_is_kept_small_with_the_same_means() -> None:
    picture = Image.linear_gradient("L").resize((6000, 3000), Image.Resampling.BILINEAR)
    mask = Region.of(picture).mask
    assert max(mask.shape) <= 2048
    whole = torch.tensor(list(picture.resize((4, 4), Image.Resampling.BOX).getdata())).view(1, 1, 4, 4) / 255
    torch.testing.assert_close(functional.interpolate(mask, (4, 4), mode="area"), whole, rtol=0, atol=0.01)
