"""The demo as a person starts it, small: pictures come out, and the style crosses over while the subject does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo import evaluation
from demo.__main__ import main
from demo.__main__ import parser as sheet_parser
from demo.learned import Learner
from demo.modes import MODES, PLAIN, STYLE
from demo.scores import JudgeGauge, scores
from demo.setups import Setup
from demo.sweeps import points
from demo.trials import Sampling, held_out_trials, pictures_of
from demo.world import export
from demo.world.host import open_world
from lib_instantstyle.standalone import StandaloneHost

from .conftest import needs_sheet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    return open_world(tmp_path_factory.mktemp("world"))


@needs_sheet
def test_the_demo_writes_its_sheet_and_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--references", "1", "--prompts", "1", "--steps", "2", "--lora-steps", "1"]
    assert main([*given, "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "demo.json").read_text("utf-8"))
    assert set(told["modes"]) == {mode.name for mode in MODES}
    assert all(0 <= one["value"] <= 1 for row in told["modes"].values() for one in row.values())
    assert Image.open(tmp_path / "sheet.png").width > 1000
    said = capsys.readouterr().out
    assert str(tmp_path / "sheet.png") in said
    assert all(mode.name in said for mode in MODES)


def test_style_crosses_over_where_the_prompt_alone_knows_nothing_of_it(host: StandaloneHost) -> None:
    trials = held_out_trials(4, 3)
    told = {
        mode.name: scores(JudgeGauge(), trials, [pictures_of(host, one, mode, Sampling()) for one in trials])
        for mode in (PLAIN, STYLE)
    }
    assert told[STYLE.name]["palette"].value > told[PLAIN.name]["palette"].value + 0.4
    assert told[STYLE.name]["prompt"].value > 0.4
    assert told[STYLE.name]["leak"].value < 0.2


@needs_sheet
def test_the_evaluation_writes_tables_and_sheets(host: StandaloneHost, tmp_path: Path) -> None:
    trials = held_out_trials(1, 1)
    chosen = [point for point in points() if point.at in ("", "1") and point.sweep in ("none", "weight")]
    setup = Setup(host, JudgeGauge(), Sampling(steps=2), trials, Learner(host, tmp_path))
    measured = evaluation.evaluate(setup, chosen)
    paths = evaluation.write(measured, trials[0], tmp_path)
    assert all(path.stat().st_size > 0 for path in paths)
    assert len(json.loads((tmp_path / "evaluation.json").read_text("utf-8"))) == len(chosen) == 5
    assert (tmp_path / "evaluation.md").read_text("utf-8").count("\n|") >= 5


SAMPLES = [(sheet_parser, "Twelve references, six prompts each", 12, 6)]
SAMPLES += [(evaluation.parser, "Eight references, five prompts each", 8, 5)]


@pytest.mark.parametrize(("parser", "told", "references", "prompts"), SAMPLES)
def test_without_options_the_document_is_redone(parser: Any, told: str, references: int, prompts: int) -> None:
    assert told in (ROOT / "docs/evaluation.md").read_text("utf-8")
    options = parser().parse_args([])
    assert (options.references, options.prompts) == (references, prompts)


@needs_sheet
def test_models_of_ones_own_are_shown_the_same_way(tmp_path: Path) -> None:
    files = export.write(tmp_path / "models")
    held_out_trials(1, 1)[0].reference.save(tmp_path / "reference.png")
    given = ["--model", str(files.checkpoint), "--adapter", str(files.adapter), "--encoder", str(files.encoder)]
    given += ["--style", str(tmp_path / "reference.png"), "--content", "a cat", "--prompt", "a house", "--steps", "2"]
    given += ["--lora-steps", "1"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    row = json.loads((tmp_path / "out" / "demo.json").read_text("utf-8"))["modes"][STYLE.name]
    assert all(-1 <= row[name]["value"] <= 1 for name in ("style", "leak", "prompt"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model", "x.safetensors"], "--adapter and --encoder"),
        (["--adapter", "y", "--style", "a.png"], "--adapter, --style goes together with --model"),
        (["--model", "x", "--adapter", "y", "--encoder", "z", "--style", "a.png"], "says what it shows"),
    ],
)
def test_what_is_missing_is_said(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
