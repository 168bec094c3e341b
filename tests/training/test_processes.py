"""Two processes that talk over gloo equal one with twice the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib_instantstyle.training import train

from .conftest import SettingsMaker
from .test_run import ROOT, command, curve, weights

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
