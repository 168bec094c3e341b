"""Preprocessing against transformers' own image processor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from PIL import Image

from lib_instantstyle.files.preprocessing import ANCHORS, PAD, SQUASH, TILES, preprocess
from lib_instantstyle.units.groups import CROPS

from ..tiny import picture
from ..tiny.clip import image_processor

SIZES = [
    (224, 224),
    (300, 200),
    (200, 300),
    (225, 224),
    (449, 224),
    (641, 480),
    (97, 1013),
    (3, 2),
    (1, 37),
    (1000, 50),
    (50, 1000),
    (3000, 2000),
    (3, 600),
    (700, 7),
    (2, 131),
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("target", [224, 336])
def test_pixels_equal_those_of_transformers(size: tuple[int, int], target: int) -> None:
    image = picture(7, size)
    theirs = image_processor(target)(images=image, return_tensors="pt").pixel_values
    ours = preprocess(image, target)
    assert ours.shape == (1, 3, target, target)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)  # one 8-bit level is 0.015


def test_single_pixel_becomes_a_plain_picture_of_its_colour() -> None:
    colour = (10, 200, 90)  # transformers before 5 takes one row for one channel here, so it cannot be the judge
    assert torch.equal(
        preprocess(Image.new("RGB", (1, 1), colour), 224), preprocess(Image.new("RGB", (224, 224), colour), 224)
    )


def test_mid_grey_is_near_zero_and_white_is_the_highest_value() -> None:
    grey = preprocess(Image.new("RGB", (9, 9), (123, 117, 104)), 32)
    assert grey.abs().max() < 0.01
    assert preprocess(Image.new("RGB", (9, 9), "white"), 32).amin() > 1.9


def test_centre_is_cropped_from_the_long_side() -> None:
    image = Image.new("RGB", (300, 100), "black")
    image.paste((255, 255, 255), (100, 0, 200, 100))
    assert preprocess(image, 100).amin() > 1.9


def whole(image: Image.Image, width: int, height: int) -> torch.Tensor:
    """A picture as Pillow scales it and transformers' processor normalises it, uncropped."""
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    plain = {"do_resize": False, "do_center_crop": False}
    return image_processor(64)(images=scaled, return_tensors="pt", **plain).pixel_values


ANCHORED = [
    ("top", (50, 120), lambda x: x[..., :64, :]),
    ("bottom", (50, 120), lambda x: x[..., -64:, :]),
    ("left", (120, 50), lambda x: x[..., :64]),
    ("right", (120, 50), lambda x: x[..., -64:]),
]


@pytest.mark.parametrize(("crop", "size", "part"), ANCHORED, ids=lambda x: x if isinstance(x, str) else "")
def test_a_square_lies_where_it_is_asked_for(
    crop: str, size: tuple[int, int], part: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    image = picture(7, size)
    expected = part(whole(image, *(side * 64 // 50 for side in size)))
    torch.testing.assert_close(preprocess(image, 64, crop), expected, rtol=0, atol=2e-6)
    across = image.transpose(Image.Transpose.ROTATE_90)  # along its other side there is nothing to choose
    assert torch.equal(preprocess(across, 64, crop), preprocess(across, 64))


@pytest.mark.parametrize("size", [(120, 50), (50, 120), (64, 64), (3, 600)])
def test_squashed_is_scaled_to_a_square(size: tuple[int, int]) -> None:
    image = picture(7, size)
    expected = whole(image, 64, 64)
    torch.testing.assert_close(preprocess(image, 64, "squash"), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(120, 60), (60, 120)])
def test_padded_is_whole_with_about_nothing_around_it(size: tuple[int, int]) -> None:
    image = picture(7, size)
    wide = size[0] > size[1]
    shown = preprocess(image, 64, "pad")
    scaled = whole(image, 64 if wide else 32, 32 if wide else 64)
    inside = shown[..., 16:48, :] if wide else shown[..., 16:48]
    torch.testing.assert_close(inside, scaled, rtol=0, atol=2e-6)
    around = shown.clone()
    (around[..., 16:48, :] if wide else around[..., 16:48]).zero_()
    assert around.abs().max() < 0.01


@pytest.mark.parametrize("crop", ["center", "top", "bottom", "left", "right", "pad", "squash"])
def test_a_square_looks_the_same_however_it_is_cropped(crop: str) -> None:
    assert torch.equal(preprocess(picture(7, (80, 80)), 64, crop), preprocess(picture(7, (80, 80)), 64))


GRIDS = [
    ((90, 90), (2, 2)),
    ((90, 60), (2, 3)),
    ((60, 90), (3, 2)),
    ((120, 60), (1, 2)),
    ((60, 120), (2, 1)),
    ((160, 90), (1, 2)),
    ((5000, 10), (1, 6)),
    ((2, 1), (1, 2)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(("size", "grid"), GRIDS, ids=str)
def test_tiles_are_the_squares_of_a_grid(size: tuple[int, int], grid: tuple[int, int]) -> None:
    image, (rows, columns) = picture(7, size), grid
    width, height = size[0] // columns, size[1] // rows
    boxes = [
        (left * width, top * height, (left + 1) * width, (top + 1) * height)
        for top in range(rows)
        for left in range(columns)
    ]
    if size == (5000, 10):
        boxes = [(5000 * n // 6, 0, 5000 * (n + 1) // 6, 10) for n in range(6)]
    expected = torch.cat([preprocess(image.crop(box), 64) for box in boxes])
    assert torch.equal(preprocess(image, 64, "tiles"), expected)


@pytest.mark.parametrize("crop", ["top", "bottom", "left", "right", "pad", "squash", "tiles"])
@pytest.mark.parametrize("size", [(10_000, 1), (1, 10_000)])
def test_a_strip_fills_no_memory(crop: str, size: tuple[int, int]) -> None:
    assert preprocess(Image.new("RGB", size, "white"), 224, crop).shape[1:] == (3, 224, 224)


def test_the_schema_offers_what_there_is() -> None:
    assert set(CROPS) == {*ANCHORS, PAD, SQUASH, TILES}


CROPS_OF_MASKS = ["center", "left", "right", "squash", "pad", "tiles"]


@pytest.mark.parametrize("crop", CROPS_OF_MASKS)
def test_what_does_not_count_is_nothing_to_the_encoder(crop: str) -> None:
    """The mask is half as large as the picture, and cut as it is."""
    image = picture(7, (120, 60))
    mask = Image.new("L", (60, 30))
    mask.paste(255, (0, 0, 60, 15))
    plain, found = preprocess(image, 64, crop), preprocess(image, 64, crop, mask)
    rows = slice(16, 32) if crop == "pad" else slice(0, 32)
    inside = torch.zeros(64, dtype=torch.bool).index_fill(0, torch.arange(64)[rows], True)
    near = torch.zeros(64, dtype=torch.bool).index_fill(0, torch.arange(28, 37), True)  # where bicubic mixes both
    assert torch.equal(found[..., inside & ~near, :], plain[..., inside & ~near, :])
    assert found[..., ~inside & ~near, :].abs().max() == 0


@pytest.mark.parametrize("crop", CROPS_OF_MASKS)
def test_a_white_mask_changes_no_bit(crop: str) -> None:
    image = picture(7, (120, 60))
    mask = Image.new("L", (9, 5), 255)
    if crop != "pad":
        assert torch.equal(preprocess(image, 64, crop, mask), preprocess(image, 64, crop))
