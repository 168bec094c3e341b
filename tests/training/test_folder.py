"""Folders of pictures: how captions are found, what is refused, what is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_instantstyle.core.errors import InstantStyleError
from lib_instantstyle.training.folder import FolderSamples, list_folder

from ..tiny import picture
from .conftest import write_pictures


def captions(folder: Path) -> dict[str, tuple[str, ...]]:
    return {entry.path.relative_to(folder).as_posix(): entry.captions for entry in list_folder(folder)}


def test_captions_lie_beside_pictures_or_are_none(tmp_path: Path) -> None:
    write_pictures(tmp_path / "inner", 1)
    picture(1).save(tmp_path / "alone.jpg")
    assert captions(tmp_path) == {"alone.jpg": ("",), "inner/0.png": ("a cat on the roof",)}


def test_metadata_gives_one_caption_or_several_and_comes_first(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    lines = [{"file_name": "0.png", "text": "one"}, {"file_name": "1.png", "text": ["two", " three "]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert captions(tmp_path) == {"0.png": ("one",), "1.png": ("two", "three"), "2.png": ("the roof, the cat",)}


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"text": "a"}', '{"file_name": "a.png"}', '{"file_name": "a.png", "text": []}']
)
def test_a_line_of_metadata_that_says_nothing_is_refused_by_number(tmp_path: Path, line: str) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "one"}\n' + line)
    with pytest.raises(InstantStyleError, match="line 2"):
        list_folder(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(InstantStyleError, match="no picture in"):
        list_folder(tmp_path)


def test_pictures_that_cannot_be_read_are_named_and_others_take_their_place(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "one"}')
    samples = FolderSamples(list_folder(tmp_path), seed=0)
    shown = {Path(samples.sample(number).name).name for number in range(8)}
    assert shown == {"0.png", "1.png"}
    assert sorted(Path(path).name for path in samples.skipped) == ["broken.png", "gone.png"]
    assert all(path in why for path, why in samples.skipped.items())


def test_a_folder_of_broken_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InstantStyleError, match="None of the pictures"):
        FolderSamples(list_folder(tmp_path), seed=0).sample(0)
