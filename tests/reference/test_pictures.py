"""Reference pictures of every kind become the same upright RGB picture."""

from __future__ import annotations

import base64
import io
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from lib_instantstyle.reference.pictures import MAX_PIXELS, read_mask, read_picture
from lib_instantstyle.units.errors import PictureError

from ..tiny import encoded, picture

ORIENTATION = 0x0112
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def read(image: Image.Image, form: str = "PNG", **options: object) -> Image.Image:
    return read_picture(encoded(image, form, **options)).image


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode == "RGB" and one.size == other.size and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_containers_give_the_pixels_back(form: str) -> None:
    image = picture()
    options = {"lossless": True} if form == "WEBP" else {}
    assert same(read(image, form, **options), image)


def test_jpeg_is_read_as_pil_reads_it() -> None:
    text = encoded(picture(), "JPEG", quality=90)
    assert same(read_picture(text).image, Image.open(io.BytesIO(base64.b64decode(text))))


def test_data_url_line_breaks_and_pil_image_mean_the_same() -> None:
    image, text = picture(), encoded(picture())
    broken = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    for source in (text, broken, f"data:image/png;base64,{text}", image):
        assert same(read_picture(source).image, image)


def test_hash_tells_pixels_and_not_containers() -> None:
    image = picture()
    hashes = {
        read_picture(source).hash
        for source in (image, encoded(image), encoded(image, "BMP"), encoded(image, "WEBP", lossless=True))
    }
    assert len(hashes) == 1
    assert len(hashes.pop()) == 32


def test_hash_tells_one_changed_pixel_and_another_shape() -> None:
    image, changed = picture(), picture()
    changed.putpixel((3, 3), RED)
    plain = [Image.new("RGB", size) for size in ((4, 9), (9, 4), (6, 6))]
    hashes = [read_picture(one).hash for one in (image, changed, *plain)]
    assert len(set(hashes)) == len(hashes)


def test_hash_ignores_hidden_colours_under_full_transparency() -> None:
    hidden = [Image.new("RGBA", (4, 4), (*colour, 0)) for colour in (RED, GREEN)]
    assert len({read_picture(one).hash for one in hidden}) == 1


def test_transparency_is_composited_on_white() -> None:
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (*RED, 128))
    pixels = [read(image).getpixel((x, 0)) for x in range(3)]
    assert pixels[:2] == [RED, WHITE]
    assert pixels[2] == pytest.approx((255, 127, 127), abs=1)


@pytest.mark.parametrize(("mode", "clear"), [("LA", (0, 0)), ("PA", (0, 0)), ("RGBa", (0, 0, 0, 0))])
def test_other_modes_with_alpha_are_composited_on_white(mode: str, clear: tuple[int, ...]) -> None:
    assert read_picture(Image.new(mode, (2, 2), clear)).image.getpixel((0, 0)) == WHITE


def test_palette_is_read_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    assert [read(image).getpixel((x, 0)) for x in range(2)] == [RED, GREEN]
    assert [read(image, transparency=0).getpixel((x, 0)) for x in range(2)] == [WHITE, GREEN]


@pytest.mark.parametrize(("mode", "colour"), [("RGB", RED), ("L", 77)])
def test_single_transparent_colour_becomes_white(mode: str, colour: object) -> None:
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 0 if mode == "L" else GREEN)
    flat = read(image, transparency=colour)
    assert [flat.getpixel((x, 0)) for x in range(2)] == [WHITE, (0, 0, 0) if mode == "L" else GREEN]


def test_grey_and_bilevel_become_rgb() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert same(read(grey), Image.merge("RGB", [grey] * 3))
    assert read(Image.new("1", (2, 2), 1)).getpixel((0, 0)) == WHITE


def test_cmyk_jpeg_becomes_rgb() -> None:
    red = read(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    assert red.getpixel((8, 8)) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(form: str) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    flat = read(Image.fromarray(levels * 257), form)
    assert np.array_equal(np.asarray(flat)[..., 0], levels)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_float_grey_is_scaled_by_its_range(scale: float) -> None:
    levels = np.linspace(0, scale, 256, dtype=np.float32).reshape(16, 16)
    flat = np.asarray(read(Image.fromarray(levels), "TIFF"))[..., 0]
    assert np.abs(flat.ravel().astype(int) - np.arange(256)).max() <= 1
    assert flat.max() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_carried_out(orientation: int) -> None:
    upright = Image.new("RGB", (4, 2), GREEN)
    upright.putpixel((0, 0), RED)
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]  # transpositions in which a camera would have stored it
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert same(read(stored, exif=exif), upright)


def test_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in (RED, GREEN)]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if form == "WEBP" else {}
        assert read(frames[0], form, save_all=True, append_images=frames[1:], **options).getpixel((2, 2)) == RED


@pytest.mark.parametrize("size", [(1, 1), (8000, 8000), (2000, 100), (100, 2000)])
def test_every_size_up_to_the_limit_is_taken(size: tuple[int, int]) -> None:
    assert read_picture(Image.new("L", size)).image.size == size


def test_more_pixels_than_the_limit_are_refused_with_the_size() -> None:
    assert MAX_PIXELS == 10_000 * 10_000
    with pytest.raises(PictureError, match="10001×10000") as caught:
        read_picture(Image.new("1", (10_001, 10_000)))
    assert caught.value.field == "image"


def test_callers_picture_is_left_as_it_was() -> None:
    image = picture().convert("RGBA")
    before = image.tobytes()
    read_picture(image)
    assert (image.mode, image.tobytes()) == ("RGBA", before)


def variants(text: str) -> dict[str, str]:
    """One picture as clients write it."""
    lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    url = text.replace("+", "-").replace("/", "_")
    return {
        "unpadded": text.rstrip("="),
        "for urls": url,
        "for urls, unpadded": url.rstrip("="),
        "in lines": lines,
        "percent-encoded": quote(text, safe=""),
        "data url": f"data:image/png;base64,{text}",
        "data url in capitals": f"DATA:IMAGE/PNG;BASE64,{text}",
        "data url with parameters": f"data:image/png;charset=utf-8;name=x.png;base64,{text}",
        "data url percent-encoded": f"data:image/png;base64,{quote(text, safe='')}",
        "data url in lines": f" \n data:image/png;base64,\n{lines}\n",
        "data url unpadded for urls": f"data:image/png;base64,{url.rstrip('=')}",
    }


@pytest.mark.parametrize("name", variants(""))
@pytest.mark.parametrize("seed", range(3))  # of one of them the padding is none, of the others one or two signs
def test_base64_is_read_as_clients_write_it(name: str, seed: int) -> None:
    data = base64.b64decode(encoded(picture(seed))) + bytes(seed)
    text = base64.b64encode(data).decode()
    assert {"+", "/"} <= set(text)
    assert read_picture(variants(text)[name]).hash == read_picture(picture(seed)).hash


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("https://example.com/a.png", "':' is not a base64 character. Paths and links are never opened."),
        ("C:\\a.png", "':' is not a base64 character"),
        ("aGVsbG8=aGVsbG8=", "'=' is not a base64 character"),
        ("aGVsb", "It was cut short: base64 never has 5 characters"),
        ("", "not a readable picture (empty, 0 bytes)"),
        (base64.b64encode(b"  <!DOCTYPE html><html>").decode(), "a web page, 23 bytes"),
        (base64.b64encode(b'<?xml version="1.0"?><svg xmlns="x"/>').decode(), "an SVG drawing"),
        (base64.b64encode(b'{"detail": "Not Found"}').decode(), "JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_cause(text: str, cause: str) -> None:
    with pytest.raises(PictureError) as caught:
        read_picture(text)
    assert cause in caught.value.message


@pytest.mark.parametrize("source", [picture(2), encoded(picture(2), "JPEG")], ids=["PIL", "base64"])
def test_a_picture_that_let_go_of_its_pixels_reads_the_same_again(source: Image.Image | str) -> None:
    seen = read_picture(source)
    pixels, size, name = seen.image.tobytes(), seen.size, seen.hash
    seen.let_go()
    assert seen._image is None
    assert (seen.image.tobytes(), seen.size, seen.hash) == (pixels, size, name)


def mask_of(image: Image.Image) -> Image.Image:
    return read_mask(encoded(image)).image


def test_a_mask_is_its_brightness() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert same(mask_of(grey), Image.merge("RGB", [grey] * 3))
    assert same(mask_of(picture()), Image.merge("RGB", [picture().convert("L")] * 3))


def test_a_mask_with_transparency_is_its_opacity() -> None:
    opacity = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    black = Image.new("RGBA", (16, 16), "black")
    black.putalpha(opacity)
    assert same(mask_of(black), Image.merge("RGB", [opacity] * 3))
    white = Image.new("RGBA", (16, 16), "white")  # opaque: it has none
    assert mask_of(white).getpixel((3, 3)) == WHITE


def test_a_mask_that_was_kept_reads_as_itself() -> None:
    once = read_mask(picture())
    assert read_mask(once.image).hash == once.hash
    pixels = once.image.tobytes()
    once.let_go()
    assert once.image.tobytes() == pixels


@pytest.mark.parametrize("image", [Image.new("RGB", (4, 4)), Image.new("RGBA", (4, 4), (255, 255, 255, 0))])
def test_a_mask_that_lets_nothing_through_is_refused(image: Image.Image) -> None:
    with pytest.raises(PictureError, match="completely black"):
        read_mask(image)
