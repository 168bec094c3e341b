"""Two processes that talk over gloo equal one with twice the batch, end together and speak with one voice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_instantstyle.standalone.cli.app import OK, REFUSED
from lib_instantstyle.standalone.training import Settings, train

from .conftest import SettingsMaker
from .test_shards import png, write_shard
from .test_trainer import ROOT, command, curve, weights

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.mark.parametrize("blocks", [("style",), ("layout", "style")], ids=["one group", "two groups"])
def test_two_processes_equal_one_with_twice_the_batch(
    settings: SettingsMaker, tmp_path: Path, blocks: tuple[str, ...]
) -> None:
    given = settings(blocks=blocks, batch=2, accumulate=2, steps=6, rate=1e-3, out=tmp_path / "two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *TWO, *command(given)], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    train(replace(given, batch=4, out=tmp_path / "one"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)  # of some 5e-3 that they have moved
    assert {line[3] for line in curve(tmp_path / "one")} == set(blocks)  # each was drawn
    for mine, theirs in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert float(mine[1]) == pytest.approx(float(theirs[1]), rel=1e-5)
        assert mine[2:] == theirs[2:]


def machines(settings: Settings, *more: tuple[str, ...]) -> list[subprocess.CompletedProcess[str]]:
    """Processes as on several machines: nobody ends one when another has failed. `more`: of each its own options."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(len(more))}
    own = {"OMP_NUM_THREADS": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    around = {**os.environ, **meeting, **own}
    running = [
        subprocess.Popen([sys.executable, *command(settings, *options)], env={**around, "RANK": str(rank)}, **pipes)
        for rank, options in enumerate(more)
    ]
    try:
        told = [one.communicate(timeout=120) for one in running]
    finally:
        for one in running:
            one.kill()
    return [subprocess.CompletedProcess((), one.returncode, *said) for one, said in zip(running, told)]


def test_where_one_process_refuses_all_end_and_the_first_tells(settings: SettingsMaker) -> None:
    given = settings(steps=1, batch=2)
    train(given)
    resumed = replace(given, steps=2, batch=1)
    first, second = machines(resumed, ("--resume", "--json"), ("--resume", "--json", "--rate", "0.5"))
    assert (first.returncode, second.returncode) == (REFUSED, REFUSED)
    assert "Process 1" in json.loads(first.stdout)["message"]
    assert "made with rate" in json.loads(first.stdout)["message"]
    assert second.stdout == ""
    assert "InstantStyle" not in second.stderr


def test_the_first_process_answers_for_all(settings: SettingsMaker, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for name in ("one", "two"):
        write_shard(tmp_path / f"shards/{name}.tar", {"a.png": png(0), "b.png": png(1), "bad.png": b"no picture"})
    first, second = machines(settings(data=tmp_path / "shards", steps=3, batch=1), ("--json",), ("--json",))
    assert (first.returncode, second.returncode, second.stdout) == (OK, OK, "")
    answer = json.loads(first.stdout)
    assert answer["steps"] == 3
    assert sorted(answer["skipped"]) == ["one.tar:bad", "two.tar:bad"]
    assert (first.stderr.count("skipped:"), second.stderr.count("skipped:")) == (2, 0)


def test_wrong_values_are_told_once(settings: SettingsMaker) -> None:
    first, second = machines(replace(settings(), steps=0), (), ())
    assert "steps must be" in first.stderr
    assert (first.returncode, second.returncode) == (REFUSED, REFUSED)
    assert "InstantStyle" not in second.stderr
