"""One case of the live matrix: a job of the WebUI under some condition, and what must hold for the style in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
from live_comparison import LEAST_EFFECT, TOLERANCE, distance
from live_condition import STEPS, USUAL, Condition
from live_recording import Pass
from live_webui import Job, LiveWebUI
from live_world import World, as_base64, picture
from oracle import STYLE, Styling, styling

PICTURE = picture(0)
SOME_STEPS = 5  # sums in another order differ by a few steps of the numbers they are computed with
UNIT: dict[str, Any] = {"image": as_base64(PICTURE), "weight": 0.8}
STYLING = Styling((PICTURE,), {STYLE: 0.8})


@dataclass(frozen=True)
class Case:
    """What is special about a job."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[str] | Sequence[Sequence[str]] = ("cu",)  # of each step's calls, as the oracle is told
    tab: str = "txt2img"
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext  # what holds in the WebUI while the jobs run
    first_term_is_kept: bool = False  # another party computes the first term of the attention: the oracle asks it
    magnifies_rounding: bool = False  # then the style may be off by as much as a few steps of its weight do
    matters: bool = False  # the condition by itself must change a plain job, or the case shows nothing


@dataclass(frozen=True)
class Seen:
    """What a case came to, in shares of the deviation of the tensors compared."""

    effect: float  # the largest change the style makes
    error: float  # the largest distance from the formula

    def __str__(self) -> str:
        return f"style {self.effect:.2g}, error {self.error:.0e}"


@dataclass
class Matrix:
    """Runs cases. Each is four jobs: with weight 0, styled, plain, and by the formula. That the first and the third are
    the same to the last bit shows that weight 0 is no style, and that the styled job has left nothing behind."""

    webui: LiveWebUI
    world: World
    condition: Condition = USUAL

    def examine(self, case: Case) -> Seen:
        """Raises AssertionError unless the style is what the formula says and leaves nothing behind.

        Skipped, saying why, where the WebUI makes no picture even without us.
        """
        if self._bare.status != 200:
            pytest.skip(f"the WebUI cannot do this by itself: {str(self._bare.answer.get('errors'))[:120]}")
        self._check_attention()
        with case.inside():
            idle, styled, plain = self._run(case, {**UNIT, "weight": 0}), self._run(case, UNIT), self._run(case)
            with styling(self.world, [STYLING], case.rows, keep_first_term=case.first_term_is_kept):
                expected = self._run(case)
        assert plain.same_as(idle), "weight 0 is not the plain job, or the styled job has left something behind"
        if case.matters:
            assert not plain.same_as(self._bare), "the condition changes nothing, so the case shows nothing"
        tolerance = self._tolerance(case, styled)
        _check_that_it_can_be_told(largest(effect_of, plain, styled), tolerance)
        return seen_in(plain, styled, expected, tolerance)

    def _check_attention(self) -> None:
        if self.condition.optimization is None:  # Forge Neo has no such module
            return
        from modules import sd_hijack

        method = sd_hijack.model_hijack.optimization_method
        assert self.condition.optimization == method, f"attention is computed by {method}"

    def _tolerance(self, case: Case, styled: Job) -> float:
        """In half precision every case magnifies rounding."""
        if self.condition.arithmetic == "float32" and not case.magnifies_rounding:
            return TOLERANCE
        nudged = self._run(case, {**UNIT, "weight": UNIT["weight"] * (1 + STEPS[self.condition.arithmetic])})
        return max(TOLERANCE, SOME_STEPS * largest(error_of, nudged, styled))

    @cached_property
    def _bare(self) -> Job:
        """The simplest job there is, without us and without the case's condition; it may have failed."""
        return self.webui.post("txt2img", (), {})

    def _run(self, case: Case, *units: Any) -> Job:
        job = self.webui.post(case.tab, units, dict(case.settings))
        assert job.status == 200, job.answer
        assert job.passes, "the job did not sample"
        return job


def seen_in(plain: Job, styled: Job, expected: Job, tolerance: float = TOLERANCE) -> Seen:
    """Raises AssertionError unless `styled` is `expected` in every pass, and far enough from `plain`."""
    assert len(plain.passes) == len(styled.passes) == len(expected.passes)
    effect, error = largest(effect_of, plain, styled), largest(error_of, styled, expected)
    assert effect > LEAST_EFFECT, f"the style hardly changed anything: {effect:.2g} of a deviation"
    told = f"off the formula by {error:.2g} of a deviation where the style changes {effect:.2g}"
    assert error < tolerance, f"{told}, with {tolerance:.2g} allowed"
    assert error < effect / 2, told
    return Seen(effect, error)


def _check_that_it_can_be_told(effect: float, tolerance: float) -> None:
    """Skip a job that one step of the numbers moves as far as half of the style does: anything could be its result."""
    if (moved := tolerance / SOME_STEPS) > effect / 2:
        pytest.skip(f"rounding alone moves this job by {moved:.2g} of a deviation, and the style by {effect:.2g}")


def largest(measure: Callable[[Pass, Pass], float], one: Job, other: Job) -> float:
    return max(measure(*passes) for passes in zip(one.passes, other.passes))


def effect_of(plain: Pass, styled: Pass) -> float:
    return max(map(distance, styled.predictions, plain.predictions)) / plain.predictions[0].std().item()


def error_of(styled: Pass, expected: Pass) -> float:
    assert len(styled.tensors) == len(expected.tensors)
    return max(distance(got, wanted) / wanted.std().item() for got, wanted in zip(styled.tensors, expected.tensors))
