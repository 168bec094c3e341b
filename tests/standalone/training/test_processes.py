"""Two processes that talk over gloo equal one with twice the batch, end together and speak with one voice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib_instantstyle.standalone.cli.app import OK, REFUSED
from lib_instantstyle.standalone.training import Settings, train

from ..forked import Command, start
from .conftest import SettingsMaker
from .test_shards import png, write_shard
from .test_trainer import ROOT, command, curve, weights

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def test_two_processes_of_a_launcher_equal_one_with_twice_the_batch(settings: SettingsMaker, tmp_path: Path) -> None:
    given = settings(batch=2, accumulate=2, steps=6, rate=1e-3, out=tmp_path / "two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *TWO, *command(given)], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    equals_one_process(given, tmp_path)


def test_two_processes_equal_one_when_groups_are_drawn(settings: SettingsMaker, tmp_path: Path) -> None:
    given = settings(blocks=("layout", "style"), batch=2, accumulate=2, steps=6, rate=1e-3, out=tmp_path / "two")
    for one in machines(given, (), ()):
        assert one.ended() == OK, one.stderr[-3000:]
    equals_one_process(given, tmp_path)


def equals_one_process(given: Settings, folder: Path) -> None:
    """What two processes have learnt, against one with twice the batch."""
    train(replace(given, batch=4, out=folder / "one"))
    one, two = weights(folder / "one"), weights(folder / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)  # of some 5e-3 that they have moved
    assert {line[3] for line in curve(folder / "one")} == set(given.blocks)  # each was drawn
    for mine, theirs in zip(curve(folder / "one"), curve(folder / "two"), strict=True):
        assert float(mine[1]) == pytest.approx(float(theirs[1]), rel=1e-5)
        assert mine[2:] == theirs[2:]


def machines(settings: Settings, *more: tuple[str, ...]) -> list[Command]:
    """Processes as on several machines: nobody ends one when another has failed. `more`: of each its own options."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(len(more))}
    around, folder = {**meeting, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, settings.out.parent
    running = [
        start([*command(settings)[2:], *options], folder, **around, RANK=str(rank)) for rank, options in enumerate(more)
    ]
    for one in running:
        one.ended(timeout=120)
    return running


def test_where_one_process_refuses_all_end_and_the_first_tells(settings: SettingsMaker) -> None:
    given = settings(steps=1, batch=2)
    train(given)
    resumed = replace(given, steps=2, batch=1)
    first, second = machines(resumed, ("--resume", "--json"), ("--resume", "--json", "--rate", "0.5"))
    assert (first.ended(), second.ended()) == (REFUSED, REFUSED)
    assert "Process 1" in json.loads(first.stdout)["message"]
    assert "made with rate" in json.loads(first.stdout)["message"]
    assert second.stdout == ""
    assert "InstantStyle" not in second.stderr


def test_the_first_process_answers_for_all(settings: SettingsMaker, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name in ("one", "two"):
        write_shard(tmp_path / f"shards/{name}.tar", {"a.png": png(0), "b.png": png(1), "bad.png": b"no picture"})
    first, second = machines(settings(data=tmp_path / "shards", steps=3, batch=1), ("--json",), ("--json",))
    assert (first.ended(), second.ended(), second.stdout) == (OK, OK, "")
    answer = json.loads(first.stdout)
    assert answer["steps"] == 3
    assert sorted(answer["skipped"]) == ["one.tar:bad", "two.tar:bad"]
    assert (first.stderr.count("skipped:"), second.stderr.count("skipped:")) == (2, 0)


def test_wrong_values_are_told_once(settings: SettingsMaker) -> None:
    first, second = machines(replace(settings(), steps=0), (), ())
    assert "steps must be" in first.stderr
    assert (first.ended(), second.ended()) == (REFUSED, REFUSED)
    assert "InstantStyle" not in second.stderr
