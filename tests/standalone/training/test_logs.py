"""What TensorBoard is told of a training, where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_instantstyle.standalone.training import train

from .conftest import SettingsMaker
from .test_trainer import curve

events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_tensorboard_is_told_the_curve(settings: SettingsMaker, tmp_path: Path) -> None:
    train(settings(blocks=("style", "layout=0.5"), steps=6, warmup=3))
    told = events.EventAccumulator(str(tmp_path / "run" / "logs"))
    told.Reload()
    lines = [(int(step), float(loss), float(rate), group) for step, loss, rate, group in curve(tmp_path / "run")]
    for tag, expected in {
        "loss": [(step, loss) for step, loss, _, _ in lines],
        "rate": [(step, rate) for step, _, rate, _ in lines],
        "loss of style": [(step, loss) for step, loss, _, group in lines if group == "style"],
    }.items():
        found = [(one.step, one.value) for one in told.Scalars(tag)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected])
