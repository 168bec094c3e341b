"""A training picture as the VAE eats it, with the numbers SDXL is told about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...units.errors import InstantStyleError

MIDDLE = (0.5, 0.5)


@dataclass(frozen=True, eq=False)
class RawSample:
    """A picture and its captions, of which one is drawn each time."""

    name: str
    image: Image.Image  # upright RGB
    captions: tuple[str, ...]  # at least one, may be empty text


def none_readable(skipped: Mapping[str, str]) -> InstantStyleError:
    """What is said where no picture can be read. `skipped`: which → why."""
    first = next(iter(skipped.values()), "there is none.")
    return InstantStyleError(f"None of the pictures can be read. The first: {first}", "data")


@dataclass(frozen=True, eq=False)
class Crop:
    """A square cut out of a picture."""

    pixels: Tensor  # (3, size, size), −1 to 1
    time_ids: Tensor  # (6,): original height and width, crop top and left, target height and width


def cut(image: Image.Image, size: int, at: tuple[float, float] = MIDDLE) -> Crop:
    """The short side scaled to `size` (bilinear), then a square: `at` 0 is the top or left end, 1 the other."""
    width, height = image.size
    short = min(width, height)
    wide, high = max(size * width // short, size), max(size * height // short, size)
    top, left = int(at[0] * (high - size + 1)), int(at[1] * (wide - size + 1))
    top, left = min(top, high - size), min(left, wide - size)
    if at == MIDDLE:
        top, left = (high - size) // 2, (wide - size) // 2
    across, down = width / wide, height / high  # pixels of the picture for one of the scaled
    box = (left * across, top * down, min((left + size) * across, width), min((top + size) * down, height))
    square = image.resize((size, size), Image.Resampling.BILINEAR, box)  # as of all of it, but a strip stays small
    pixels = torch.from_numpy(np.asarray(square, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()
    return Crop(pixels, torch.tensor([height, width, top, left, size, size], dtype=torch.float32))
