"""Preprocessing against transformers' own image processor."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lib_instantstyle.files.image_encoders import preprocess

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
