"""Pictures that hold more than a picture, and links to pictures: one frame is read, and nothing is ever fetched."""

from __future__ import annotations

import base64
import io
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from lib_instantstyle.reference import plans
from lib_instantstyle.reference.pictures import FORMATS, read_picture
from lib_instantstyle.reference.plans import read_pictures
from lib_instantstyle.units.errors import PictureError
from lib_instantstyle.units.unit import StyleUnit

from ..refusals import refusal
from ..tiny import encoded, picture
from .test_hostile_pictures import base64_of, png_bomb, png_chunk

FRAMES = 300
ANIMATED = [form for form in ("GIF", "PNG", "TIFF", "WEBP") if form != "WEBP" or features.check("webp_anim")]


@pytest.mark.parametrize("form", ANIMATED)
def test_of_many_frames_the_first_is_read_and_no_other(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, rest = picture(0, (8, 8)), [picture(1, (8, 8))] * FRAMES
    sent = encoded(first, form, save_all=True, append_images=rest, **({"lossless": True} if form == "WEBP" else {}))
    opened = Image.open(io.BytesIO(base64.b64decode(sent)))
    sought: list[int] = []
    seek = type(opened).seek
    monkeypatch.setattr(type(opened), "seek", lambda self, frame: (sought.append(frame), seek(self, frame))[1])
    read = read_picture(sent).image
    assert set(sought) <= {0}
    assert np.abs(np.asarray(read, int) - np.asarray(first, int)).mean() < 20  # a GIF has a palette


def apng_of_endless_frames() -> bytes:
    """A PNG that says it is a film of four thousand million pictures."""
    png = base64.b64decode(encoded(picture(0, (8, 8))))
    return png[:33] + png_chunk(b"acTL", struct.pack(">II", 0xFFFFFFFF, 0)) + png[33:]


def tiff_in_circles() -> bytes:
    """A TIFF whose second page is its first."""
    data = bytearray(base64.b64decode(encoded(picture(0, (8, 8)), "TIFF")))
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    data[start + 2 + 12 * count :][:4] = struct.pack("<I", start)
    return bytes(data[: start + 2 + 12 * count]) + struct.pack("<I", start) + bytes(data[start + 6 + 12 * count :])


@pytest.mark.parametrize("data", [apng_of_endless_frames(), tiff_in_circles()], ids=["APNG", "TIFF"])
def test_a_promise_of_endless_frames_is_not_followed(data: bytes) -> None:
    refused = refusal(lambda: read_picture(base64_of(data)))
    assert refused is not None or read_picture(base64_of(data)).image.size == (8, 8)


def with_text(kind: bytes, data: bytes) -> bytes:
    png = base64.b64decode(encoded(picture(0, (8, 8))))
    return png[:33] + png_chunk(kind, data) + png[33:]


PACKED = zlib.compress(bytes(20_000_000), 9)
TEXT_BOMBS = {
    "zTXt": with_text(b"zTXt", b"Comment\0\0" + PACKED),
    "iTXt": with_text(b"iTXt", b"Comment\0\1\0\0\0" + PACKED),
    "iCCP": with_text(b"iCCP", b"profile\0\0" + PACKED),
    "many": with_text(b"tEXt", b"Comment\0" + bytes(1_000_000)) * 3,
}


@pytest.mark.parametrize("name", TEXT_BOMBS)
def test_text_that_unpacks_without_end_is_refused_or_left_packed(name: str) -> None:
    if refusal(lambda: read_picture(base64_of(TEXT_BOMBS[name]))) is None:
        read = read_picture(base64_of(TEXT_BOMBS[name])).image
        assert sum(len(str(value)) for value in read.info.values()) < 3 * PngImagePlugin.MAX_TEXT_CHUNK


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 16, 0, 0, 54) + header + bytes(16)


SIZES = [(0, 0), (0, 8), (8, 0), (1 << 30, 1), (1, 1 << 30), (50_000, 50_000), (-8, 8), ((1 << 31) - 1, (1 << 31) - 1)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_size_that_no_picture_has_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(PictureError):
        read_picture(base64_of(bmp(*size)))


LINKS = [
    "http://127.0.0.1:7860/sdapi/v1/options",
    "https://localhost/picture.png",
    "http://[::1]/picture.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://0x7f000001/",
    "//127.0.0.1/picture.png",
    "ftp://127.0.0.1/picture.png",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "\\\\127.0.0.1\\share\\picture.png",
    "data:image/png,http://127.0.0.1/picture.png",
    "data:text/uri-list;base64," + base64_of(b"http://127.0.0.1/picture.png"),
    "blob:http://127.0.0.1/1",
    "/dev/zero",
    "/proc/self/environ",
    "~/picture.png",
    "picture.png\x00",
    "javascript:alert(1)",
    base64_of(b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>"),
    base64_of(b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>'),
    base64_of(b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\n%%EOF"),
    base64_of(b"#!/bin/sh\ntouch pwned\n"),
    base64_of(b"\xd7\xcd\xc6\x9a" + bytes(60)),  # Windows metafile
    base64_of(b"#define a_width 8\n#define a_height 8\nstatic char a_bits[] = {0,0,0,0,0,0,0,0};"),
    base64_of(b"P6 8 8 255\n" + bytes(192)),
]


@pytest.mark.parametrize("sent", LINKS, ids=range(len(LINKS)))
def test_nothing_is_fetched_and_no_file_opened_for_a_payload(sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where) or [])
    monkeypatch.setattr(Path, "open", lambda self, *_, **__: asked.append(self))
    monkeypatch.setattr("builtins.open", lambda file, *_, **__: asked.append(file))
    with pytest.raises(PictureError) as caught:
        read_picture(sent)
    monkeypatch.undo()
    assert asked == []
    assert caught.value.field == "image"
    assert len(caught.value.message) < 400


def test_formats_that_run_something_or_read_other_files_are_shut() -> None:
    assert not {"EPS", "WMF", "FPX", "MIC", "PDF", "ICNS", "PSD", "SPIDER", "IPTC", "HDF5", "BUFR", "GRIB"} & set(
        FORMATS
    )


ERRORS = [
    OverflowError,
    ZeroDivisionError,
    AssertionError,
    RuntimeError,
    RecursionError,
    zlib.error,
    NotImplementedError,
]


@pytest.mark.parametrize("error", [*ERRORS, AttributeError, MemoryError, Image.DecompressionBombError])
def test_whatever_a_decoder_raises_is_a_refusal(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image) -> None:
        raise error

    sent = encoded(picture(0, (8, 8)))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(PictureError, match=error.__name__):
        read_picture(sent)


def test_many_bombs_in_one_unit_are_refused_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may be allowed by itself; thirty-two of them would take ten gigabytes."""
    monkeypatch.setattr(plans, "MAX_UNIT_PIXELS", 100)
    one = encoded(picture(0, (6, 6)))
    assert len(read_pictures(StyleUnit(image=(one, one)))["image"]) == 2
    for fields in ({"image": (one,) * 3}, {"image": (one,), "content_image": (one, one)}):
        with pytest.raises(PictureError, match="together") as caught:
            read_pictures(StyleUnit(**fields))
        assert caught.value.field == list(fields)[-1]


def test_a_bomb_in_any_field_is_refused_by_the_fields_name() -> None:
    one, bomb = encoded(picture(0, (6, 6))), base64_of(png_bomb(50_000, 50_000))
    for field in ("image", "content_image", "negative_image"):
        with pytest.raises(PictureError, match="megapixels") as caught:
            read_pictures(StyleUnit(**{"image": (one,), field: (bomb,)}))
        assert caught.value.field == field
