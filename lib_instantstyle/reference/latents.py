"""A reference as a checkpoint's VAE is given it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..units.errors import IncompatibleModelError

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
