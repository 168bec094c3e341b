"""Where in the picture a unit acts: a mask over it, resized by area to each layer's own grid.

The grid is known from the height and width that the UNet is given, not from the number of positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .fusions import on_grid

MOST = 2048  # of a mask's sides; more says nothing to a layer, whose grid is 128 wide for a picture of 2048

Part = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the whole picture's sides
WHOLE: Part = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Place:
    """A layer's grid, and the part of the picture that lies on it."""

    grid: tuple[int, int]  # height, width
    part: Part = WHOLE


@dataclass(frozen=True, eq=False)
class Region:
    """A mask, and what it comes to on the grids it was asked for."""

    mask: Tensor  # (1, 1, height, width), 1 where the style acts
    _kept: dict[Place, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, image: Image.Image) -> Region:
        """The region that a picture's greys describe."""
        grey = image.convert("L")
        grey = grey.reduce(max(-(-max(grey.size) // MOST), 1))
        return cls(torch.from_numpy(np.array(grey, dtype=np.float32) / 255.0)[None, None])

    def on(self, place: Place) -> Tensor:
        """A factor for each position of a grid: (1, positions, 1)."""
        if place not in self._kept:
            self._kept[place] = on_grid(self._shown(place.part), place.grid)
        return self._kept[place]

    def _shown(self, part: Part) -> Tensor:
        """What of the mask lies on a part of the picture; at least one pixel."""
        height, width = self.mask.shape[2:]
        (left, right), (top, bottom) = _pixels(part[0], part[2], width), _pixels(part[1], part[3], height)
        return self.mask[..., top:bottom, left:right]


def _pixels(start: float, end: float, length: int) -> tuple[int, int]:
    first = min(round(start * length), length - 1)
    return first, max(round(end * length), first + 1)
