"""Trials, scores and the sheet: what is asked is what is measured and shown."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from demo.modes import COMPARED, MODES, ORIGINAL, ORIGINAL_REMOVED, PLAIN
from demo.scores import JudgeGauge, mean, scores, table
from demo.sheet import CELL, Row, Section, sheet
from demo.sweeps import CONTROLS, REMOVAL_SCALES, WEIGHTS, points
from demo.trials import WorldTrial, held_out_trials
from demo.world.drawing import draw
from demo.world.scenes import Scene
from lib_instantstyle.units.blocks import SDXL_BLOCKS, SDXL_LAYERS
from lib_instantstyle.units.routing import route

from .conftest import needs_sheet


def test_references_are_held_out_and_prompts_ask_for_other_subjects() -> None:
    for trial in held_out_trials(12, 6):
        assert trial.scene.held_out
        assert trial.scene.subject not in trial.subjects
        assert len(set(trial.subjects)) == len(trial.prompts) == 6


def test_trials_are_the_same_every_time() -> None:
    assert [trial.scene for trial in held_out_trials(4, 3)] == [trial.scene for trial in held_out_trials(4, 3)]


def test_a_mode_names_the_content_only_where_it_removes_it() -> None:
    reference = draw(Scene("cat", "left", "small", "ice", "flat"))
    assert PLAIN.units(reference, "a cat") == ()
    assert ORIGINAL.units(reference, "a cat")[0].content_prompt == ""
    assert ORIGINAL_REMOVED.units(reference, "a cat")[0].content_prompt == "a cat"


def test_every_point_of_the_sweeps_is_a_unit_that_can_be_routed() -> None:
    reference, seen = draw(Scene("cat", "left", "small", "ice", "flat")), []
    for point in points():
        seen.append((point.sweep, point.series, point.at))
        for unit in point.mode.units(reference, "a cat"):
            assert route(unit, SDXL_LAYERS)
    swept = 4 * len(WEIGHTS) + len(SDXL_BLOCKS) + 3 * len(REMOVAL_SCALES)
    swept += sum(len(controls) for _, controls in CONTROLS.values())
    assert len(seen) == len(set(seen)) == 1 + swept + len(COMPARED)


@pytest.fixture(scope="module")
def trial() -> WorldTrial:
    return next(one for one in held_out_trials(20, 2) if one.scene.place == "centre")


def test_pictures_in_the_references_style_of_the_prompts_subject_score_full(trial: WorldTrial) -> None:
    right = [draw(Scene(subject, "right", "small", *trial.scene.style, seed=9)) for subject in trial.subjects]
    told = scores(JudgeGauge(), [trial], [right])
    assert (told["style"].value, told["leak"].value, told["prompt"].value, told["layout"].value) == (1, 0, 1, 0)


def test_the_reference_itself_is_all_leak(trial: WorldTrial) -> None:
    told = scores(JudgeGauge(), [trial], [[trial.reference] * 2])
    assert (told["style"].value, told["leak"].value, told["prompt"].value, told["layout"].value) == (1, 1, 0, 1)


def test_intervals_come_from_references_not_from_pictures() -> None:
    one_reference = mean([[0.0, 1.0] * 50])
    assert one_reference.low == one_reference.value == one_reference.high == 0.5
    two = mean([[0.0] * 50, [1.0] * 50])
    assert (two.low, two.value, two.high) == (0.0, 0.5, 1.0)


def test_the_table_has_a_line_for_each_name() -> None:
    lines = table({"one": {"style": mean([[0.0], [1.0]])}, "other": {"style": mean([[1.0]])}}).splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("one")
    assert "0.50 (0.00–1.00)" in lines[1]


@needs_sheet
def test_the_sheet_shows_every_picture_where_it_belongs() -> None:
    def plain(grey: int) -> Image.Image:
        return Image.new("RGB", (64, 64), (grey,) * 3)

    rows = [Row(f"a {n}", plain(10 * n + 10), [plain(10 * n + 11 + m) for m in range(6)]) for n in range(4)]
    heads = [mode.name for mode in MODES]
    drawn = np.asarray(sheet([Section("one", heads, rows[:2]), Section("", heads[:3], rows[2:])]).convert("L"))
    for row in rows:
        for picture in (row.reference, *row.made):
            assert picture is not None
            grey = picture.getpixel((0, 0))[0]
            assert (drawn == grey).sum() >= CELL * CELL


@pytest.mark.parametrize("held_out", [False, True])
def test_the_judge_knows_what_unseen_pictures_show(held_out: bool) -> None:
    from demo.world.dataset import scenes
    from demo.world.judge import trained_judge

    shown = scenes(150, 21, held_out=held_out)
    said = trained_judge().judge([draw(scene) for scene in shown])
    for name in ("subject", "place", "size", "palette", "texture"):
        right = np.mean([getattr(one, name) == getattr(scene, name) for one, scene in zip(said, shown)])
        assert right > 0.93, (name, right)


@needs_sheet
def test_a_place_without_a_picture_stays_empty() -> None:
    drawn = sheet([Section("", ["one"], [Row("source", None, [Image.new("RGB", (8, 8), (9, 9, 9))])])])
    assert (np.asarray(drawn.convert("L")) == 9).sum() == CELL * CELL
