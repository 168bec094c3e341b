"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_instantstyle.files.whole_files import write_whole


def cut_short(path: Path) -> None:
    path.write_text("hal")
    raise KeyboardInterrupt


@pytest.mark.parametrize("alone", [True, False])
def test_folder_is_made_and_only_the_whole_file_is_there(alone: bool, tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "file", lambda path: path.write_text("whole"), alone=alone)
    assert [(one.name, one.read_text()) for one in (tmp_path / "new").iterdir()] == [("file", "whole")]


@pytest.mark.parametrize("alone", [True, False])
def test_interrupted_writing_leaves_what_was_there_and_nothing_else(alone: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", cut_short, alone=alone)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


def test_what_a_killed_process_left_half_done_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file.part").write_text("hal")
    write_whole(tmp_path / "file", lambda path: path.write_text("whole"))
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_two_who_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    def write_twice(path: Path) -> None:
        write_whole(tmp_path / "file", lambda other: other.write_text("other"), alone=False)
        path.write_text("own")

    write_whole(tmp_path / "file", write_twice, alone=False)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "own")]
