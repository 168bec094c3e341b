"""The contact sheet: each row shows its own reference."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_instantstyle.standalone.cli.references import find_styles
from lib_instantstyle.standalone.cli.sheet import THUMBNAIL, Cell, Index

from ..tiny import picture


def write_sheet(folder: Path, references: Path) -> str:
    """The page of an index with one cell for each picture in `references`."""
    index = Index.read(folder)
    for one in find_styles([references]):
        (picture,) = one.open()
        index.keep_reference(one.name, picture)
        name = f"{picture.hash}.png"
        (folder / name).touch()
        index.add(Cell(picture.hash[:12], one.name, "a cat", (name,), picture=picture.hash))
    return (folder / "index.html").read_text("utf-8")


def rows(page: str) -> dict[str, str]:
    """Where each row's picture lies, by what the row is called; of several rows of one name the last."""
    return {name: path for path, name in re.findall(r'<tr><th><img src="([^"]+)" alt="">([^<]+)</th>', page)}


@pytest.mark.parametrize("names", [("猫", "犬", "Кот"), ("Cat 1", "cat-1", "CAT_1")])
def test_each_row_shows_its_own_reference_whatever_it_is_called(tmp_path: Path, names: tuple[str, ...]) -> None:
    (tmp_path / "given").mkdir()
    for number, name in enumerate(names):
        picture(number).save(tmp_path / f"given/{name}.png")
    found = rows(write_sheet(tmp_path / "out", tmp_path / "given"))
    assert set(found) == set(names)
    for number, name in enumerate(names):
        wanted = picture(number)
        wanted.thumbnail((THUMBNAIL, THUMBNAIL))
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / found[name])), np.asarray(wanted))


def test_pictures_of_a_reference_that_was_replaced_keep_a_row_with_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    for number in range(2):
        picture(number).save(tmp_path / "given/cat.png")
        page = write_sheet(tmp_path / "out", tmp_path / "given")
    shown = re.findall(r'<th><img src="([^"]+)"', page)
    assert len(set(shown)) == len(shown) == 2
    assert all((tmp_path / "out" / path).is_file() for path in shown)


def test_a_reference_that_cannot_be_read_has_a_row_without_a_picture(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.write([Cell("", "broken", "a cat", error="no picture")])
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "<th>broken</th><td>no picture</td>" in page
