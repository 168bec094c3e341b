"""Folders of pictures: how captions are found, what is refused, what is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_instantstyle.standalone.training.folder import FolderSamples, list_folder
from lib_instantstyle.units.errors import InstantStyleError

from ...tiny import picture
from .conftest import write_pictures


def captions(folder: Path) -> dict[str, tuple[str, ...]]:
    return {entry.path.relative_to(folder).as_posix(): entry.captions for entry in list_folder(folder)}


def test_captions_lie_beside_pictures_or_are_none(tmp_path: Path) -> None:
    write_pictures(tmp_path / "inner", 1)
    picture(1).save(tmp_path / "alone.jpg")
    assert captions(tmp_path) == {"alone.jpg": ("",), "inner/0.png": ("a cat on the roof",)}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("0.TXT", b"told"),
        ("0.caption", b"\xef\xbb\xbftold\n"),
        ("0.png.txt", b"told"),
        ("0.json", b'{"caption": "told", "width": 3}'),
        ("metadata.csv", b"file_name,text\n0.png,told\n"),
        ("metadata.csv", b'caption,file_name\n"told",0.png\n'),
        ("metadata.jsonl", b'{"file_name": "0.png", "caption": "told"}'),
    ],
)
def test_captions_are_read_wherever_tools_put_them(tmp_path: Path, name: str, data: bytes) -> None:
    for folder in (tmp_path, tmp_path / "train"):  # a split has its own table
        folder.mkdir(exist_ok=True)
        picture(0).save(folder / "0.png")
        (folder / name).write_bytes(data)
    assert captions(tmp_path) == {"0.png": ("told",), "train/0.png": ("told",)}


def test_of_several_captions_the_richer_file_counts(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "0.caption").write_text("caption")
    assert captions(tmp_path) == {"0.png": ("caption",)}
    (tmp_path / "0.txt").write_text("text")
    assert captions(tmp_path) == {"0.png": ("text",)}
    (tmp_path / "0.json").write_text('{"width": 3}')  # says nothing
    assert captions(tmp_path) == {"0.png": ("text",)}
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,table\n")
    assert captions(tmp_path) == {"0.png": ("table",)}


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    for hidden in ("__MACOSX/0.png", ".thumbnails/0.png", "._0.png", "__MACOSX/metadata.csv"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"left by a program")
    assert captions(tmp_path) == {"0.png": ("a cat on the roof",)}


@pytest.mark.parametrize("data", [b"text\na cat\n", b"file_name,kind\n0.png,cat\n", b"\xff\xfe"])
def test_a_csv_that_names_no_picture_or_no_caption_is_refused(tmp_path: Path, data: bytes) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "metadata.csv").write_bytes(data)
    with pytest.raises(InstantStyleError, match=r"metadata\.csv"):
        list_folder(tmp_path)


def test_metadata_gives_one_caption_or_several_and_comes_first(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    lines = [{"file_name": "0.png", "text": "one"}, {"file_name": "1.png", "text": ["two", " three "]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert captions(tmp_path) == {"0.png": ("one",), "1.png": ("two", "three"), "2.png": ("the roof, the cat",)}


def test_metadata_may_name_a_picture_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "data/inner", 3)
    absolute = str(tmp_path / "data/inner/1.png")
    names = ["./inner/0.png", absolute, "inner/../inner/2.png"]
    lines = [json.dumps({"file_name": name, "text": f"number {at}"}) for at, name in enumerate(names)]
    (tmp_path / "data/metadata.jsonl").write_text("\n".join(lines))
    wanted = {f"inner/{at}.png": (f"number {at}",) for at in range(3)}
    assert captions(tmp_path / "data") == wanted
    monkeypatch.chdir(tmp_path)
    assert captions(Path("data")) == captions(Path("./data/")) == wanted


@pytest.mark.parametrize("name", ["../a.png", "/elsewhere/a.png", "."])
def test_metadata_that_names_a_picture_outside_is_refused_by_number(tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path / "data", 1)
    (tmp_path / "data/metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "one"}))
    with pytest.raises(InstantStyleError, match=r"line 1: .*inside"):
        list_folder(tmp_path / "data")


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
