"""Reference pictures as they come: decoding, turning upright, flattening to RGB, and their content hash.

Only bytes that a payload carries are read: a path or a link is never opened.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageOps

from ..units.errors import PictureError
from ..units.fields import shown

Flat = Callable[[Image.Image], Image.Image]

MAX_PIXELS = 100_000_000  # of one picture, 10,000 × 10,000; more is a decompression bomb rather than a reference
MARK = 64  # characters among which a data URL says that it is one
URL_ALPHABET = str.maketrans("-_", "+/")  # RFC 4648 §5, to the plain one
WHITE = (255, 255, 255, 255)
# Pillow's names of the formats that are read, where installed. The rest stays shut: PostScript starts an interpreter.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".heif", ".heic", ".gif", ".bmp", ".tif", ".tiff")  # likewise


class Picture:
    """A reference picture, upright and in RGB. Known by its hash, it can let go of its pixels and read them anew."""

    def __init__(self, source: str | Image.Image, flat: Flat | None = None) -> None:
        """A picture from base64 text, a data URL or a PIL image. Raises PictureError when it cannot be read.

        `flat` makes an upright picture RGB; `flatten` if not given.
        """
        self._source, self._flat = source, flat or flatten
        self._image: Image.Image | None = _upright(_opened(source), self._flat)
        self.size: tuple[int, int] = self._image.size
        self.hash = content_hash(self._image)  # 32 hex digits of the SHA-256 over size and RGB pixels

    @property
    def image(self) -> Image.Image:
        """The pixels. Raises PictureError when they were let go and the source, a PIL image, was closed since."""
        if self._image is None:
            self._image = _upright(_opened(self._source), self._flat)
        return self._image

    def let_go(self) -> None:
        """Keep no pixels: a picture of 24 megapixels takes 72 MB, and is no longer needed once it is encoded."""
        self._image = None


def read_picture(source: str | Image.Image) -> Picture:
    """A picture from base64 text, a data URL or a PIL image. Raises PictureError when it cannot be read."""
    return Picture(source)


def read_mask(source: str | Image.Image) -> Picture:
    """A mask, from the same: greys in RGB, white where it lets through. Raises PictureError when it is all black."""
    mask = Picture(source, as_mask)
    if not mask.image.getbbox():
        raise PictureError("The mask is completely black, so nothing would be left. Paint some of it white.", "mask")
    return mask


def _opened(source: str | Image.Image) -> Image.Image:
    return _open(_bytes_of(source)) if isinstance(source, str) else source


def decode_picture(data: bytes) -> Image.Image:
    """The picture in a file's bytes, upright and in RGB. Raises PictureError when it cannot be read."""
    return _upright(_open(data))


def read_kept(path: Path) -> Image.Image:
    """A picture that was kept on this machine, as PNG. Raises PictureError when it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path.name} cannot be read ({error.strerror}).") from None
    return _upright(_open(data, ("PNG",)))


def _upright(image: Image.Image, flat: Flat | None = None) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(
            f"A reference picture may have at most {MAX_PIXELS // 1_000_000} megapixels; "
            f"this one is {image.width}×{image.height}. Make it smaller.",
            "image",
        )
    try:
        return (flat or flatten)(ImageOps.exif_transpose(image) or image)
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
            f"A reference picture may have at most {MAX_PIXELS // 1_000_000} megapixels; this one has far more.",
            "image",
        ) from None
    except Exception:  # as above
        raise PictureError(
            f"The data is not a readable picture ({_kind_of(data)}, {len(data)} bytes). Send PNG, JPEG or WebP.",
            "image",
        ) from None


def _kind_of(data: bytes) -> str:
    """What data that is not a picture looks like, for people who look for their mistake."""
    kinds = {b"<svg": "an SVG drawing", b"<!doc": "a web page", b"<html": "a web page", b"{": "JSON", b"%pdf": "a PDF"}
    start = data[:200].lstrip().lower()
    if start.startswith(b"<?xml"):
        return "an SVG drawing" if b"<svg" in start else "XML"
    return next((kind for mark, kind in kinds.items() if start.startswith(mark)), "unknown" if data else "empty")


def _bytes_of(text: str) -> bytes:
    """The bytes in base64 text as clients write it: with white space or line breaks, percent-encoded, in the alphabet
    for URLs, without padding. All of these are unambiguous. Raises PictureError naming the cause for anything else.
    """
    payload = text.partition(",")[2] if text[:MARK].lstrip()[:5].lower() == "data:" else text
    payload = "".join(payload.split())
    if "%" in payload:
        payload = "".join(unquote(payload).split())
    payload = payload.translate(URL_ALPHABET).rstrip("=")
    try:
        return base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise PictureError(f"{_why_not_base64(text, payload)} Paths and links are never opened.", "image") from None


def _why_not_base64(text: str, payload: str) -> str:
    rule = f"A picture must be sent as base64 text or a data URL, got {shown(text)}."
    if stranger := re.search(r"[^A-Za-z0-9+/]", payload):
        return f"{rule} {stranger[0]!r} is not a base64 character."
    return f"{rule} It was cut short: base64 never has {len(payload)} characters."


def flatten(image: Image.Image) -> Image.Image:
    """The first frame in 8-bit RGB, transparency composited on white, 16-bit greys scaled rather than clipped."""
    image.seek(0)
    if image.mode.startswith(("I", "F")):
        return _eight_bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba).convert("RGB")
    return image.convert("RGB")


def as_mask(image: Image.Image) -> Image.Image:
    """The first frame's opacity where it has transparent places, else its brightness, as an RGB picture of greys."""
    image.seek(0)
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        opacity = image.convert("RGBA").getchannel("A")
        if opacity.point(lambda value: 255 - value).getbbox():
            return Image.merge("RGB", [opacity] * 3)
    return Image.merge("RGB", [flatten(image).convert("L")] * 3)


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
