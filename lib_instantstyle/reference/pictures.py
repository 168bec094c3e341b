"""Reference pictures as they come: decoding, turning upright, flattening to RGB, and their content hash.

Only bytes that a payload carries are read: a path or a link is never opened.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..units.errors import PictureError
from ..units.fields import shown

MAX_PIXELS = 100_000_000  # of one picture, 10,000 × 10,000; more is a decompression bomb rather than a reference
WHITE = (255, 255, 255, 255)
# Pillow's names of the formats that are read, where installed. The rest stays shut: PostScript starts an interpreter.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".heif", ".heic", ".gif", ".bmp", ".tif", ".tiff")  # likewise


@dataclass(frozen=True, eq=False)
class Picture:
    """A reference picture, upright and in RGB."""

    image: Image.Image
    hash: str  # 32 hex digits of the SHA-256 over size and RGB pixels


def read_picture(source: str | Image.Image) -> Picture:
    """A picture from base64 text, a data URL or a PIL image. Raises PictureError when it cannot be read."""
    upright = _upright(_open(_bytes_of(source)) if isinstance(source, str) else source)
    return Picture(upright, content_hash(upright))


def decode_picture(data: bytes) -> Image.Image:
    """The picture in a file's bytes, upright and in RGB. Raises PictureError when it cannot be read."""
    return _upright(_open(data))


def read_kept(path: Path) -> Picture:
    """A picture that was kept on this machine, as PNG. Raises PictureError when it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path.name} cannot be read ({error.strerror}).") from None
    upright = _upright(_open(data, ("PNG",)))
    return Picture(upright, content_hash(upright))


def _upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(
            f"A reference picture may have {MAX_PIXELS // 1_000_000} megapixels at most; "
            f"this one is {image.width}×{image.height}. Make it smaller.",
            "image",
        )
    try:
        return flatten(ImageOps.exif_transpose(image) or image)
    except Exception as error:  # a broken file makes its reader raise whatever it likes
        why = str(error)[:200] or type(error).__name__
        raise PictureError(f"The picture is damaged ({why}). Save it again, as PNG or JPEG.", "image") from None


def _open(data: bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked next
            Image.init()
            return Image.open(io.BytesIO(data), formats=[form for form in formats if form in Image.OPEN])
    except Image.DecompressionBombError:
        raise PictureError(
            f"A reference picture may have {MAX_PIXELS // 1_000_000} megapixels at most; this one has far more.",
            "image",
        ) from None
    except Exception:  # as above
        raise PictureError(
            f"The data is no picture that can be read ({len(data)} bytes). Send PNG, JPEG, WebP or the like.", "image"
        ) from None


def _bytes_of(text: str) -> bytes:
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError):
        raise PictureError(
            f"A picture must be sent as base64 text or a data URL, got {shown(text)}. "
            "Paths and links are never opened.",
            "image",
        ) from None


def flatten(image: Image.Image) -> Image.Image:
    """The first frame in 8-bit RGB, transparency composited on white, 16-bit greys scaled rather than clipped."""
    image.seek(0)
    if image.mode.startswith(("I", "F")):
        return _eight_bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits: integers span 16 bits, floats what their largest value suggests."""
    wide = image if image.mode == "F" else image.convert("I").convert("F")
    full = _float_range(float(np.asarray(wide).max())) if image.mode == "F" else 65535.0
    return wide.point(lambda value: value * (255.0 / full)).convert("L")


def _float_range(top: float) -> float:
    return next((full for full in (1.0, 255.0) if top <= full), 65535.0)


def content_hash(image: Image.Image) -> str:
    """32 hex digits that stand for the pixels of an RGB picture, whatever file they came from."""
    size = f"{image.width}x{image.height}:".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()[:32]
