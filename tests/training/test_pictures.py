"""From a picture to the VAE's square, and the six numbers SDXL is told."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib_instantstyle.training.pictures import cut

from ..tiny import picture


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
