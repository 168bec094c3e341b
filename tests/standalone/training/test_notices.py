"""What is said of the data before a training begins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_instantstyle.standalone.cli.app import OK, main
from lib_instantstyle.standalone.training.folder import list_folder
from lib_instantstyle.standalone.training.notices import notices
from lib_instantstyle.standalone.training.shards import find_shards

from ...tiny import picture
from .conftest import SettingsMaker, write_pictures
from .test_shards import png, write_shard
from .test_trainer import command


def tokens(text: str) -> int:
    return len(text.split()) + 2


def told(folder: Path) -> list[str]:
    shards = find_shards(folder)
    return notices(folder, [] if shards else list_folder(folder), shards, tokens)


def test_good_data_is_not_talked_about(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    picture(3).save(tmp_path / "alone.png")  # some may lack theirs
    assert told(tmp_path) == []


def test_nothing_but_empty_prompts_is_said(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(" \n")
    (found,) = told(tmp_path)
    assert "only empty prompts" in found


def test_of_shards_the_first_samples_are_looked_at(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {"a.png": png(0), "b.png": png(1)})
    (found,) = told(tmp_path)
    assert "None of the first 2 pictures" in found
    write_shard(tmp_path / "0.tar", {"a.png": png(0), "b.png": png(1), "b.txt": b"text"})
    assert told(tmp_path) == []


def test_captions_beyond_what_clip_reads_are_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    (tmp_path / "0.txt").write_text(" ".join(["word"] * 76))
    (tmp_path / "1.txt").write_text(" ".join(["word"] * 75))
    (found,) = told(tmp_path)
    assert found.startswith("1 captions of the first 3 pictures")


def test_a_table_that_is_not_read_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "metadata.parquet").write_bytes(b"")
    (found,) = told(tmp_path)
    assert "metadata.parquet is not read" in found


def test_the_command_warns_aloud_and_for_machines(
    settings: SettingsMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    picture(0).save(tmp_path / "data/a.png")
    given = settings(data=tmp_path / "data", steps=1, batch=1)
    assert main([*command(given)[2:], "--json"]) == OK
    (found,) = json.loads(capsys.readouterr().out)["warnings"]
    assert "only empty prompts" in found
    assert found in caplog.text
