"""From a picture to the VAE's square, and the six numbers SDXL is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_instantstyle.standalone.training.crops import MIDDLE, cut

from ...tiny import picture


@pytest.mark.parametrize(("size", "told"), [((128, 64), (64, 128, 0, 32)), ((64, 128), (128, 64, 32, 0))])
def test_the_middle_is_cut_out_and_told(size: tuple[int, int], told: tuple[int, ...]) -> None:
    image = picture(0, size)
    crop = cut(image, 64)
    assert crop.time_ids.tolist() == [*told, 64, 64]
    top, left = told[2:]
    square = np.asarray(image)[top : top + 64, left : left + 64]
    np.testing.assert_allclose(crop.pixels.permute(1, 2, 0).numpy(), square / 127.5 - 1, atol=1e-6)


def test_the_short_side_is_scaled_first() -> None:
    crop = cut(picture(0, (300, 200)), 64)
    assert crop.pixels.shape == (3, 64, 64)
    assert crop.time_ids.tolist() == [200, 300, 0, 16, 64, 64]


@pytest.mark.parametrize(("at", "left"), [(0.0, 0), (0.999, 64), (1.0, 64)])
def test_a_square_can_be_cut_anywhere_inside(at: float, left: int) -> None:
    crop = cut(picture(0, (128, 64)), 64, (at, at))
    assert crop.time_ids.tolist()[2:4] == [0, left]


def test_white_is_one_and_black_is_minus_one() -> None:
    assert cut(Image.new("RGB", (64, 64), "white"), 64).pixels.unique().tolist() == [1.0]
    assert cut(Image.new("RGB", (64, 64), "black"), 64).pixels.unique().tolist() == [-1.0]


@pytest.mark.parametrize("size", [(300, 200), (97, 331), (64, 64), (501, 20), (40, 41)])
@pytest.mark.parametrize("at", [MIDDLE, (0.0, 0.3), (1.0, 1.0)])
def test_a_square_equals_that_of_the_whole_picture_enlarged(size: tuple[int, int], at: tuple[float, float]) -> None:
    image, short = picture(3, size), min(size)
    crop = cut(image, 64, at)
    top, left = (int(x) for x in crop.time_ids[2:4])
    whole = image.resize((64 * size[0] // short, 64 * size[1] // short), Image.Resampling.BILINEAR)
    square = np.asarray(whole.crop((left, top, left + 64, top + 64)), dtype=np.float32)
    found = (crop.pixels.permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(found - square).max() <= 1.001  # of 255: a rounding


def test_a_strip_is_not_enlarged_whole() -> None:
    enlarged: list[tuple[int, int]] = []

    class Strip(Image.Image):
        def resize(self, size: Any, *more: Any, **given: Any) -> Image.Image:
            enlarged.append(size)
            return super().resize(size, *more, **given)

    image = picture(0, (1, 2000))
    image.__class__ = Strip
    crop = cut(image, 256)
    assert enlarged == [(256, 256)]
    assert crop.time_ids.tolist() == [2000, 1, (2000 * 256 - 256) // 2, 0, 256, 256]
