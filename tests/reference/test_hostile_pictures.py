"""Hostile pictures: whatever is sent, only PictureError may come out of it."""

from __future__ import annotations

import base64
import pickle
import string
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from lib_instantstyle.files.preprocessing import preprocess
from lib_instantstyle.reference.pictures import read_picture
from lib_instantstyle.units.errors import PictureError

from ..refusals import refusal
from ..tiny import encoded, picture


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A few bytes that promise a picture of that size."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000))) + png_chunk(b"IEND", b"")


def icon_around(png: bytes) -> bytes:
    """An .ico whose directory says 16×16 and whose picture is what it is."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png


def dds(four_cc: bytes) -> bytes:
    return (
        b"DDS "
        + struct.pack("<II", 124, 0)
        + struct.pack("<II", 16, 16)
        + bytes(60)
        + struct.pack("<II4s", 32, 4, four_cc)
        + bytes(60)
    )


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
NO_PICTURES = {
    "empty": "",
    "blank": "  \n",
    "path": "/etc/passwd",
    "relative path": "../../models/secret.png",
    "two dots": "../",
    "windows path": "C:\\Windows\\win.ini",
    "file url": "file:///etc/passwd",
    "link": "http://127.0.0.1:9/picture.png",
    "secure link": "https://example.com/picture.png",
    "data url of nothing": "data:image/png;base64,",
    "data url without comma": "data:image/png;base64",
    "words": "a picture of a rabbit",
    "no ascii": "пикча",
    "text": base64_of(b"just some text"),
    "pickle": base64_of(pickle.dumps({"image": 1})),
    "svg": base64_of(b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"),
    "bomb": base64_of(png_bomb(50_000, 50_000)),
    "long bomb": base64_of(png_bomb(2_000_000_000, 1)),
    "bomb just above the limit": base64_of(png_bomb(10_001, 10_001)),
    "bomb in an icon": base64_of(icon_around(png_bomb(50_000, 50_000))),
    "unknown texture": base64_of(dds(b"ABCD")),
    "postscript": base64_of(POSTSCRIPT),
    "cut in half": encoded(picture())[:400],
    "nul bytes": base64_of(bytes(100_000)),
}


@pytest.mark.parametrize("sent", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_refused_as_one(sent: str) -> None:
    with pytest.raises(PictureError) as caught:
        read_picture(sent)
    assert caught.value.field == "image"
    assert len(caught.value.message) < 400


def test_huge_garbage_is_refused_without_being_quoted() -> None:
    for garbage in ("A" * 20_000_000, "?" * 20_000_000):
        with pytest.raises(PictureError) as caught:
            read_picture(garbage)
        assert len(caught.value.message) < 400


def test_path_of_a_real_picture_is_never_opened(tmp_path: Path) -> None:
    picture().save(tmp_path / "real.png")
    for sent in (str(tmp_path / "real.png"), (tmp_path / "real.png").as_uri(), "real.png"):
        with pytest.raises(PictureError, match="never opened"):
            read_picture(sent)


def test_postscript_is_never_handed_to_an_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    run = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **_: run.append(args))
    with pytest.raises(PictureError):
        read_picture(base64_of(POSTSCRIPT))
    assert not run


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
def test_endless_strip_is_not_blown_up_along_its_length(size: tuple[int, int]) -> None:
    assert preprocess(Image.new("RGB", size, "white"), 224).shape == (1, 3, 224, 224)  # whole, it would take 40 GB


FORMATS = [form for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP") if form != "WEBP" or features.check("webp")]


@given(
    st.sampled_from(FORMATS), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8)
)
def test_picture_with_changed_bytes_is_read_or_refused(form: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(base64.b64decode(encoded(picture(0, (16, 12)), form)))
    for place, value in changes:
        data[int(place * len(data))] = value
    refused = refusal(lambda: read_picture(base64_of(bytes(data))))
    assert refused is None or isinstance(refused, PictureError)


@given(
    st.one_of(
        st.text(max_size=60), st.text(string.ascii_letters + "+/=", max_size=60), st.binary(max_size=60).map(base64_of)
    )
)
def test_any_text_is_read_or_refused(text: str) -> None:
    refused = refusal(lambda: read_picture(text))
    assert refused is None or isinstance(refused, PictureError)
