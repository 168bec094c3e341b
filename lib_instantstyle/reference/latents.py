"""A reference as a checkpoint's VAE is given it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..units.errors import IncompatibleModelError
from .host import Host
from .pictures import Picture

FACTOR = 8  # pixels to a place of a latent, for SDXL's VAE


def pixels_for(image: Image.Image, height: int, width: int, factor: int = FACTOR) -> Tensor:
    """(1, 3, factor · height, factor · width), 0 to 1: an RGB picture scaled to cover a latent, the rest cut off."""
    fitted = ImageOps.fit(image, (width * factor, height * factor), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1)[None].float() / 255


def checked_latent(latent: Tensor) -> Tensor:
    """The latent, if all of it are numbers. Raises IncompatibleModelError."""
    if not torch.isfinite(latent).all():
        raise IncompatibleModelError(
            "The VAE gave numbers that are none for this reference: it overflows in half precision. Choose a VAE that "
            "does not, such as sdxl-vae-fp16-fix, or start with --no-half-vae."
        )
    return latent


@dataclass(frozen=True, eq=False)
class Latents:
    """The latents of a job's pictures: each is made once for each size, by content."""

    _kept: dict[tuple[str, tuple[int, int]], Tensor] = field(default_factory=dict)

    def of(self, host: Host, picture: Picture, size: tuple[int, int]) -> Tensor:
        """(1, channels, height, width) at a size, which is its height and width. Raises IncompatibleModelError."""
        if (picture.hash, size) not in self._kept:
            self._kept[picture.hash, size] = host.latent_of(picture.image, *size)
        return self._kept[picture.hash, size]

    def let_go(self) -> None:
        """Keep none."""
        self._kept.clear()
