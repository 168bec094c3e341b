"""How a unit's pictures are seen and put together reaches the keys and values: against transformers and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_instantstyle.reference.content import project
from lib_instantstyle.reference.embedding import Embedder
from lib_instantstyle.reference.pictures import read_picture
from lib_instantstyle.reference.removal import read_reference
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.errors import InstantStyleError, UnitError

from ..by_hand import CLOSE, World, attach, pixels_of
from ..jobs import unit
from ..tiny import TinyHost, picture

TALL, WIDE = picture(5, (36, 108)), picture(6, (108, 36))
HIGH, BROAD = TALL.resize((32, 96), Image.Resampling.BICUBIC), WIDE.resize((96, 32), Image.Resampling.BICUBIC)
SEEN = [
    ("top", TALL, HIGH, [(0, 0, 32, 32)]),
    ("bottom", TALL, HIGH, [(0, 64, 32, 96)]),
    ("left", WIDE, BROAD, [(0, 0, 32, 32)]),
    ("right", WIDE, BROAD, [(64, 0, 96, 32)]),
    ("squash", WIDE, WIDE, [(0, 0, 108, 36)]),
    ("tiles", WIDE, WIDE, [(0, 0, 36, 36), (36, 0, 72, 36), (72, 0, 108, 36)]),
    ("tiles", TALL, TALL, [(0, 0, 36, 36), (0, 36, 36, 72), (0, 72, 36, 108)]),
]


@pytest.fixture
def by_hand(world: Path) -> World:
    return World(world)


def expect(found: dict[int, tuple[Tensor, Tensor]], by_hand: World, cond: Tensor) -> None:
    """Keys of conditional rows from image embeddings (n, width), whose tokens stand side by side."""
    tokens = by_hand.tokens(cond).flatten(0, 1)
    for layer, (key, _) in found.items():
        torch.testing.assert_close(key[1], by_hand.key(tokens, layer), **CLOSE)


@pytest.mark.parametrize(("crop", "image", "scaled", "boxes"), SEEN, ids=lambda x: x if isinstance(x, str) else "")
def test_a_crop_is_what_the_encoder_sees_of_a_reference(
    session: StyleSession, by_hand: World, crop: str, image: Image.Image, scaled: Image.Image, boxes: list[Any]
) -> None:
    parts = [scaled.crop(box).resize((32, 32), Image.Resampling.BICUBIC) for box in boxes]
    found = attach(session, unit(image=(image,), crop=crop))
    expect(found, by_hand, by_hand.embeds_of(*parts).mean(0, keepdim=True))


def test_each_crop_of_a_picture_is_kept_by_itself(session: StyleSession) -> None:
    keys = [attach(session, unit(image=(TALL,), crop=crop)) for crop in ("center", "top", "pad", "squash", "tiles")]
    first = [next(iter(found.values()))[0] for found in keys]
    assert not any(torch.equal(one, other) for at, one in enumerate(first) for other in first[:at])


def image_embeds(by_hand: World) -> Tensor:
    return torch.cat([by_hand.image_embeds(seed) for seed in range(3)])


THREE = tuple(picture(seed) for seed in range(3))
WEIGHTS = [None, (1.0, 1.0, 1.0), (2.0, 1.0, 0.5), (0.0, 3.0, 1.0)]


def comfy(e: Tensor, how: str, weights: tuple[float, ...] | None) -> Tensor:
    """ComfyUI_IPAdapter_plus's `combine_embeds`, with weights as numpy's weighted average has them."""
    kept = [row for row, weight in enumerate(weights or (1.0,) * 3) if weight]
    e = e[kept]
    if how == "norm_average":
        e = e / torch.norm(e, dim=0, keepdim=True)
    return torch.tensor(np.average(e.numpy(), axis=0, weights=weights and [weights[row] for row in kept]))[None].float()


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("how", ["average", "norm_average"])
def test_averages_are_taken_before_the_projection(
    session: StyleSession, by_hand: World, how: str, weights: tuple[float, ...] | None
) -> None:
    found = attach(session, unit(image=THREE, combine=how, image_weights=weights))
    expect(found, by_hand, comfy(image_embeds(by_hand), how, weights))


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_side_by_side_weights_multiply_values(
    session: StyleSession, by_hand: World, weights: tuple[float, ...] | None
) -> None:
    plain = attach(session, unit(image=THREE))
    found = attach(session, unit(image=THREE, image_weights=weights))
    kept = [row for row, weight in enumerate(weights or (1.0,) * 3) if weight]
    expect(found, by_hand, image_embeds(by_hand)[kept])
    tokens = [4 * row + token for row in kept for token in range(4)]
    shares = torch.tensor([(weights or (1.0,) * 3)[row] for row in kept])
    shares = (shares * len(kept) / shares.sum()).repeat_interleave(4)[:, None]
    for layer, (_, value) in found.items():
        torch.testing.assert_close(value[1], plain[layer][1][1][tokens] * shares, **CLOSE)
        assert torch.equal(value[0], plain[layer][1][0][: len(tokens)])


def test_equal_weights_change_no_bit(session: StyleSession) -> None:
    for how in ("concat", "average"):
        plain = attach(session, unit(image=THREE, combine=how))
        for layer, pair in attach(session, unit(image=THREE, combine=how, image_weights=(0.7, 0.7, 0.7))).items():
            assert all(map(torch.equal, pair, plain[layer]))


@pytest.mark.parametrize("how", ["average", "norm_average"])
def test_one_picture_is_itself_however_it_is_combined(session: StyleSession, how: str) -> None:
    plain = attach(session, unit())
    for fields in ({"image": (picture(),)}, {"image": THREE, "image_weights": (1.0, 0.0, 0.0)}):
        for layer, pair in attach(session, unit(combine=how, **fields)).items():
            assert all(map(torch.equal, pair, plain[layer]))


def test_pictures_of_a_plus_adapter_are_averaged_place_by_place(session: StyleSession, by_hand: World) -> None:
    reference = read_reference(
        session.plan([unit(adapter="plus", image=THREE, combine="average")])[0], Embedder(session.host)
    )
    (found, shares) = reference.combined()
    torch.testing.assert_close(
        found, torch.cat([by_hand.hidden(seed) for seed in range(3)]).mean(0, keepdim=True), **CLOSE
    )
    assert shares.tolist() == [1.0]


def test_content_goes_from_each_picture_before_they_are_combined(
    session: StyleSession, by_hand: World, host: TinyHost
) -> None:
    words = {"content_prompt": "a rabbit", "content_method": "project", "content_scale": 1.0}
    found = attach(session, unit(image=THREE, combine="average", **words))
    expect(found, by_hand, project(image_embeds(by_hand), host.text_embeds("a rabbit"), 1.0).mean(0, keepdim=True))


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0)])
def test_weights_that_do_not_go_with_the_pictures_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(UnitError) as refused:
        unit(image=THREE, image_weights=weights).check()
    assert refused.value.field == "image_weights"


def masked(by_hand: World, image: Image.Image, mask: Image.Image) -> Tensor:
    """The encoder on a picture that is mid-grey where the mask, as large as the picture, is black."""
    (short,) = {min(image.size)}
    size = tuple(32 * side // short for side in image.size)
    left, top = ((side - 32) // 2 for side in size)
    factor = torch.tensor(np.asarray(mask.resize(size, Image.Resampling.BICUBIC), np.float32))[top : top + 32] / 255
    with torch.no_grad():
        return by_hand.encoder(pixels_of(image) * factor[:, left : left + 32]).image_embeds


ROUND = Image.radial_gradient("L").resize((40, 36))


def test_a_part_of_the_reference_counts(session: StyleSession, by_hand: World) -> None:
    found = attach(session, unit(image_mask=(ROUND,)))
    expect(found, by_hand, masked(by_hand, picture(), ROUND))


def test_each_picture_has_its_own_mask_or_all_have_one(session: StyleSession, by_hand: World) -> None:
    other = ROUND.transpose(Image.Transpose.ROTATE_90).resize((40, 36)).point(lambda x: 255 - x)
    found = attach(session, unit(image=THREE[:2], image_mask=(ROUND, other)))
    expect(found, by_hand, torch.cat([masked(by_hand, THREE[0], ROUND), masked(by_hand, THREE[1], other)]))
    found = attach(session, unit(image=THREE[:2], image_mask=(ROUND,)))
    expect(found, by_hand, torch.cat([masked(by_hand, one, ROUND) for one in THREE[:2]]))


def test_a_cut_out_is_its_own_mask(session: StyleSession, by_hand: World) -> None:
    cut = picture().convert("RGBA")
    cut.putalpha(ROUND)
    white = Image.alpha_composite(Image.new("RGBA", cut.size, "white"), cut).convert("RGB")
    expect(attach(session, unit(image=(cut,), image_mask=(cut,))), by_hand, masked(by_hand, white, ROUND))


def test_masks_are_described_by_their_hashes_and_let_go(session: StyleSession) -> None:
    plan = session.plan([unit(image_mask=(ROUND,), mask=(picture(3),))])[0]
    assert plan.described.image_mask == (plan.read["image_mask"][0].hash,)
    assert plan.described.mask == (plan.read["mask"][0].hash,)
    assert len(plan.all_pictures) == 3


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"mask": (Image.new("L", (4, 4)),)}, "mask"),
        ({"image_mask": ("no picture!",)}, "image_mask"),
        ({"image": THREE, "image_mask": (ROUND, ROUND)}, "image_mask"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(session: StyleSession, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InstantStyleError) as refused:
        session.plan([unit(**fields)])
    assert (refused.value.unit, refused.value.field) == (1, field)


def test_a_region_reaches_every_layer_of_its_unit_alone(session: StyleSession) -> None:
    session.attach(session.plan([unit(mask=(ROUND,), preset="style_precise"), unit()]))
    for layer in session._layers:
        first, *others = layer.units
        assert first.region is not None
        assert torch.equal(first.region.mask[0, 0], torch.tensor(np.asarray(ROUND, np.float32)) / 255)
        assert all(one.region is None for one in others)


def uncond_expected(found: dict[int, tuple[Tensor, Tensor]], by_hand: World, uncond: Tensor) -> None:
    tokens = by_hand.tokens(uncond).flatten(0, 1)
    for layer, (key, _) in found.items():
        torch.testing.assert_close(key[0], by_hand.key(tokens, layer), **CLOSE)


@torch.no_grad()
def noise_of(by_hand: World, image: Image.Image) -> Tensor:
    """The encoder on a picture whose pixels come in the order of its hash."""
    order = np.random.default_rng(int(read_picture(image).hash[:8], 16)).permutation(32 * 32)
    return by_hand.encoder(pixels_of(image).flatten(2)[..., order].view(1, 3, 32, 32)).image_embeds


def test_several_pictures_are_avoided_by_their_mean(session: StyleSession, by_hand: World) -> None:
    found = attach(session, unit(negative_image=THREE[1:]))
    uncond_expected(found, by_hand, image_embeds(by_hand)[1:].mean(0, keepdim=True))
    expect(found, by_hand, by_hand.image_embeds(0))


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_noise_to_avoid_is_mixed_with_what_is_avoided(session: StyleSession, by_hand: World, share: float) -> None:
    noise = noise_of(by_hand, THREE[0])
    found = attach(session, unit(negative_noise=share))
    uncond_expected(found, by_hand, share * noise)
    expect(found, by_hand, by_hand.image_embeds(0))
    found = attach(session, unit(negative_noise=share, negative_image=THREE[1:2]))
    uncond_expected(found, by_hand, (1 - share) * by_hand.image_embeds(1) + share * noise)


def test_noise_of_several_references_is_their_mean(session: StyleSession, by_hand: World) -> None:
    noise = torch.cat([noise_of(by_hand, one) for one in THREE]).mean(0, keepdim=True)
    uncond_expected(attach(session, unit(image=THREE, combine="average", negative_noise=0.5)), by_hand, 0.5 * noise)


def test_no_noise_changes_no_bit_and_encodes_nothing_more(session: StyleSession, host: TinyHost) -> None:
    plain, loads = attach(session, unit()), host.encoder_loads
    for layer, pair in attach(session, unit(negative_noise=0.0)).items():
        assert all(map(torch.equal, pair, plain[layer]))
    assert host.encoder_loads == loads
