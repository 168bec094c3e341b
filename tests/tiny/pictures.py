"""Reference pictures, and how a client sends them."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A picture of smooth random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> str:
    """A picture as base64 text of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return base64.b64encode(buffer.getvalue()).decode()
