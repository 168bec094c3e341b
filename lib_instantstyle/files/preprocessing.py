"""RGB pictures to an image encoder's pixels. The centre crop equals CLIPImageProcessor's; the others show more, or
another part, of a picture that is not square.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CENTER, PAD, SQUASH, TILES = "center", "pad", "squash", "tiles"
# Where the square lies along the width and along the height: 0 at their beginning, 1 at their end.
ANCHORS = {CENTER: (0.5, 0.5), "top": (0.5, 0.0), "bottom": (0.5, 1.0), "left": (0.0, 0.5), "right": (1.0, 0.5)}
GREY = tuple(round(255 * mean) for mean in CLIP_MEAN)  # about nothing, to the encoder
MOST_TILES = 6
LONGEST = 64  # short sides; what lies farther out on a long side is cut off before a picture is resized


def preprocess(image: Image.Image, size: int, crop: str = CENTER, counts: Image.Image | None = None) -> Tensor:
    """An RGB picture → (pictures, 3, size, size) pixels: one, or several of tiles; 0..1, CLIP mean and deviation.

    Where `counts`, a mask of any size laid over the picture, is black, there is mid-grey: zeros after normalisation.
    """
    pixels = torch.cat([_normal(one) for one in fitted(image, size, crop)])
    return pixels if counts is None else pixels * _factors(counts.convert("L").resize(image.size), size, crop)


def _factors(mask: Image.Image, size: int, crop: str) -> Tensor:
    """How much each pixel counts: (pictures, 1, size, size)."""
    return torch.stack([torch.from_numpy(np.array(one, np.float32) / 255.0) for one in fitted(mask, size, crop)])[
        :, None
    ]


def shuffled(pixels: Tensor, seed: int) -> Tensor:
    """The pixels of each picture in an order that the seed decides: (pictures, 3, size, size) → the same."""
    order = np.random.default_rng(seed).permutation(pixels.shape[2] * pixels.shape[3])
    return pixels.flatten(2)[..., torch.from_numpy(order)].view(pixels.shape)


def fitted(image: Image.Image, size: int, crop: str) -> list[Image.Image]:
    """What the encoder sees of a picture: size × size, resized bicubically.

    `center`, `top`, `bottom`, `left`, `right`: a square of the short side; `pad`: all of it, with grey around it;
    `squash`: all of it, its sides made equal; `tiles`: the squares of a grid.
    """
    if crop == TILES:
        return [_square(tile, size, ANCHORS[CENTER]) for tile in tiles(image)]
    if crop == SQUASH:
        return [image.resize((size, size), Image.Resampling.BICUBIC)]
    return [_padded(image, size) if crop == PAD else _square(image, size, ANCHORS[crop])]


def tiles(image: Image.Image) -> list[Image.Image]:
    """The picture cut along `grid_for`, row by row."""
    rows, columns = grid_for(*image.size)
    across, down = _cuts(image.width, columns), _cuts(image.height, rows)
    return [image.crop((left, top, right, bottom)) for top, bottom in down for left, right in across]


def grid_for(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of two to six tiles that are as near to squares as can be; of equals the fewest."""
    grids = [(rows, columns) for rows in range(1, MOST_TILES + 1) for columns in range(1, MOST_TILES // rows + 1)]
    cutting = [(rows, columns) for rows, columns in grids if rows * columns > 1 and rows <= height and columns <= width]
    return min(
        cutting or [(1, 1)],
        key=lambda grid: (round(abs(math.log(width * grid[0] / (height * grid[1]))), 6), grid[0] * grid[1]),
    )


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    edges = [length * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def _square(image: Image.Image, size: int, anchor: tuple[float, float]) -> Image.Image:
    """Short side to `size` (long side rounded down), then the square at the anchor."""
    image = _without_far_ends(image, anchor)
    width, height = image.size
    short = min(width, height)
    scaled = image.resize((size * width // short, size * height // short), Image.Resampling.BICUBIC)
    left, top = (int((side - size) * at) for side, at in zip(scaled.size, anchor))
    return scaled.crop((left, top, left + size, top + size))


def _padded(image: Image.Image, size: int) -> Image.Image:
    """Long side to `size`, in the middle of a grey square."""
    longest = max(image.size)
    width, height = (max(round(size * side / longest), 1) for side in image.size)
    square = Image.new(image.mode, (size, size), GREY if image.mode == "RGB" else 0)
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((size - width) // 2, (size - height) // 2))
    return square


def _without_far_ends(image: Image.Image, anchor: tuple[float, float]) -> Image.Image:
    """The part of a strip at the anchor: enlarged whole, a long strip would fill the memory."""
    reach = LONGEST * min(image.size)
    left, top = (int(max(side - reach, 0) * at) for side, at in zip(image.size, anchor))
    right, bottom = (side - int(max(side - reach, 0) * (1 - at)) for side, at in zip(image.size, anchor))
    whole = (left, top, right, bottom) == (0, 0, *image.size)
    return image if whole else image.crop((left, top, right, bottom))


def _normal(image: Image.Image) -> Tensor:
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    normal = (pixels - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1)[None].contiguous()  # (1, 3, size, size)
