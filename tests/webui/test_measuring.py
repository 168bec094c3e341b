"""Measured results, and whose turn it is to look at references."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lib_instantstyle.reference.analysis import Analyst
from lib_instantstyle.reference.embedding import BATCH
from lib_instantstyle.reference.vocabulary import vocabulary
from lib_instantstyle.units.errors import StoppedError
from lib_instantstyle.units.unit import StyleUnit

from ..tiny import encoded, picture
from .seen import same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111


@pytest.fixture
def measuring(web: A1111) -> A1111:
    web.opts.data["instantstyle_measure"] = True
    return web


def measured(made: Any) -> list[bool]:
    return ["InstantStyle measured" in text for text in made.infotexts]


def test_nothing_is_measured_unless_that_is_set(web: A1111) -> None:
    assert measured(web.generate(unit())) == [False]


def test_each_picture_is_measured_by_itself_and_the_grid_is_not(measuring: A1111) -> None:
    made = measuring.generate(unit(), n_iter=2, batch_size=2)
    assert measured(made) == [False, True, True, True, True]
    texts = [text.partition("InstantStyle measured")[2] for text in made.infotexts[1:]]
    assert len(set(texts)) >= 3  # two may be equal when rounded
    assert "style" in texts[0]


def test_measuring_changes_no_picture(measuring: A1111) -> None:
    made = measuring.generate(unit())
    measuring.opts.data["instantstyle_measure"] = False
    assert same(made.images, measuring.generate(unit()).images)


def test_a_plain_picture_is_not_measured(measuring: A1111) -> None:
    assert measured(measuring.generate()) == [False]


def test_the_picture_is_compared_with_its_own_prompt(measuring: A1111) -> None:
    measuring.generate(unit(), prompt="a tall tower")
    assert measuring.sd_model.read.count("a tall tower") == 2  # for the picture, and to compare it


def test_each_picture_of_a_batch_is_compared_with_its_own_prompt(measuring: A1111) -> None:
    texts = ["a tall tower", "a low roof"]
    measuring.add_neighbour(process=lambda p: setattr(p, "all_prompts", texts))
    compared: list[str] = []
    measuring.add_neighbour(postprocess_image=lambda p, pp: compared.append(measuring.sd_model.read[-1]))
    measuring.generate(unit(), batch_size=2)
    assert compared == texts


def test_a_picture_is_measured_by_the_first_reference_that_acts(measuring: A1111) -> None:
    idle = unit(weight=0, image=encoded(picture(5)))
    both, alone = (measuring.generate(*units).infotexts[0] for units in ((idle, unit()), (unit(),)))
    assert both.partition("InstantStyle measured")[2] == alone.partition("InstantStyle measured")[2] != ""


def test_a_picture_is_measured_after_another_script_has_wound_the_job_up(measuring: A1111) -> None:
    first = measuring.runners["txt2img"].alwayson_scripts
    measuring.add_neighbour(postprocess_image=lambda p, pp: p.scripts.postprocess(p, None))
    first.insert(0, first.pop())
    assert measured(measuring.generate(unit())) == [True]


def test_what_cannot_be_measured_is_told_and_keeps_the_picture(
    measuring: A1111, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr("lib_instantstyle.reference.analysis.Analyst.measure", fail)
    p = measuring.job(unit())
    assert "InstantStyle could not measure a picture: no room" in measuring.shown(p)
    assert measured(measuring.made) == [False]


def test_a_picture_that_cannot_be_measured_has_no_measure_of_another(
    measuring: A1111, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Analyst.measure

    def once(*args: Any) -> Any:
        monkeypatch.setattr(Analyst, "measure", lambda *_: 1 / 0)
        return measure(*args)

    monkeypatch.setattr(Analyst, "measure", once)
    assert measured(measuring.generate(unit(), n_iter=2))[1:] == [True, False]


def test_a_short_look_neither_waits_nor_disturbs(web: A1111) -> None:
    measuring = web.library("measuring")
    with measuring.analyst_if_free() as analyst:
        assert analyst is measuring.live_analyst()
        assert not web.queue_lock.acquire(blocking=False)
    assert web.queue_lock.acquire(blocking=False)
    with measuring.analyst_if_free() as analyst:
        assert analyst is None
    web.queue_lock.release()


@pytest.mark.parametrize("look", ["analyst_if_free", "analyst_in_turn"])
def test_looks_are_computed_in_their_own_numbers(web: A1111, look: str) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), getattr(web.library("measuring"), look)():
        assert not torch.is_autocast_cpu_enabled()


def test_an_error_in_a_look_gives_the_queue_back(web: A1111) -> None:
    measuring = web.library("measuring")
    for look in (measuring.analyst_if_free, measuring.analyst_in_turn):
        with pytest.raises(ZeroDivisionError), look():
            raise ZeroDivisionError
        assert web.queue_lock.acquire(blocking=False)
        web.queue_lock.release()


def test_a_long_look_waits_for_its_turn(web: A1111) -> None:
    with web.library("measuring").analyst_in_turn():
        assert not web.queue_lock.acquire(blocking=False)


def reading(web: A1111, monkeypatch: pytest.MonkeyPatch, progress: Any) -> tuple[Any, list[str]]:
    """An analysis in turns of one part of the vocabulary each, and the tasks that the WebUI hears of."""
    measuring, tasks = web.library("measuring"), list[str]()
    begin = web.state.begin

    def note(job: str) -> None:
        tasks.append(job)
        begin(job)

    monkeypatch.setattr(measuring, "TURN", -1.0)
    monkeypatch.setattr(web.state, "begin", note)
    asked = StyleUnit.from_dict(unit())
    return measuring.analyse_in_turn(asked, 3, progress), tasks


def test_jobs_come_in_between_while_the_vocabulary_is_read(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    found, tasks = reading(web, monkeypatch, lambda share, doing: shares.append(share))
    assert len(found.words) == 3
    assert tasks == ["instantstyle-analysis"] * -(-len(vocabulary()) // BATCH)
    assert shares == sorted(shares)
    assert web.library("measuring").shared.state.job == ""


def test_interrupt_ends_a_reading_and_keeps_what_was_read(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    state = web.library("measuring").shared.state

    def interrupt(share: float, doing: str) -> None:
        state.interrupted = share > 0.4

    with pytest.raises(StoppedError):
        reading(web, monkeypatch, interrupt)
    assert state.job == ""
    assert web.queue_lock.acquire(blocking=False)
    web.queue_lock.release()
    _, tasks = reading(web, monkeypatch, lambda share, doing: None)
    assert len(tasks) < 0.7 * len(vocabulary()) / BATCH + 1
