"""Analysing references and measuring results inside the WebUI: when it is our turn, and what a picture's text says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from PIL import Image

from modules import shared
from modules.call_queue import queue_lock
from modules.fifo_lock import FIFOLock

from ..reference.analysis import Analysis, Analyst, Progress
from ..units.errors import InstantStyleError, StoppedError
from ..units.methods import ADAPTER
from ..units.unit import StyleUnit
from .hosts.a1111_casting import uncast
from .job import StyleJob, live_job

MEASURED_KEY = "InstantStyle measured"
TASK = "instantstyle-analysis"  # what the WebUI's progress calls it
TURN = 4.0  # seconds; the last part that is read in it comes on top, one or two

log = logging.getLogger("InstantStyle")
_short_looks = FIFOLock()


@cache
def live_analyst() -> Analyst:
    """The one analyst of the process; it reads with the same host as the job."""
    return Analyst(live_job().host)


def analyse_in_turn(unit: StyleUnit, count: int, progress: Progress | None = None) -> Analysis:
    """The best `count` words and the meter, once all jobs before us in the WebUI's own queue are done.

    Reading the vocabulary for the first time takes a minute; every few seconds jobs that wait come first. Not to be
    used inside a job, which holds the queue's lock itself. Raises InstantStyleError, StoppedError after Interrupt.
    """
    heard = 0.0

    def tell(share: float, doing: str) -> None:
        nonlocal heard
        heard = max(heard, share)  # a new turn looks at the pictures again
        if shared.state.interrupted:
            raise StoppedError("The analysis was interrupted. It will continue from there next time.")
        if progress:
            progress(heard, doing)

    while (found := _one_turn(unit, count, tell)) is None:
        pass
    return found


def _one_turn(unit: StyleUnit, count: int, tell: Progress) -> Analysis | None:
    with analyst_in_turn() as analyst:
        ends = time.monotonic() + TURN
        return analyst.analyse_until(lambda: time.monotonic() > ends, unit, count=count, progress=tell)


@contextmanager
def analyst_in_turn() -> Iterator[Analyst]:
    """The analyst, once the jobs before us are done, as a task of the WebUI's that its Interrupt can stop."""
    with queue_lock, uncast():
        shared.state.begin(job=TASK)
        try:
            yield live_analyst()
        finally:
            shared.state.end()


@contextmanager
def analyst_if_free() -> Iterator[Analyst | None]:
    """The analyst if no job runs or waits, else None at once: what moves with a slider neither waits nor disturbs.

    Only callers of this wait for each other, in their order.
    """
    with _short_looks:
        yield from _if_free()


def _if_free() -> Iterator[Analyst | None]:
    if not queue_lock.acquire(blocking=False):
        yield None
        return
    try:
        with uncast():
            yield live_analyst()
    finally:
        queue_lock.release()


class Measured(str):
    """A measurement as the WebUI writes it beside the picture: as it stands, but not beside a grid of pictures."""

    def __call__(self, use_main_prompt: bool = False, **_: object) -> str | None:
        return None if use_main_prompt else str(self)


def measure_result(job: StyleJob, p: Any, image: Image.Image, units: Callable[[], Sequence[StyleUnit]]) -> None:
    """Write what a finished picture is similar to into its infotext, by the first unit that acts; never raise.

    The picture is only looked at. `units` gives those of `p`, should its plans be gone.
    """
    if not getattr(shared.opts, "instantstyle_measure", False):
        return
    p.extra_generation_params.pop(MEASURED_KEY, None)  # that of the picture before
    try:
        _measure(job, p, image, units)
    except Exception as error:
        if not isinstance(error, InstantStyleError):
            log.exception("Unexpected error; the picture is not measured")
        job.tell(f"InstantStyle could not measure a picture: {error}")


def _measure(job: StyleJob, p: Any, image: Image.Image, units: Callable[[], Sequence[StyleUnit]]) -> None:
    if p is not job.owner:  # another script has wound it up, to run a job of its own on the picture
        job.begin(p, units())
    plan = next((plan for plan in job.plans if plan.scales and plan.unit.method == ADAPTER), None)
    if plan is None:
        return
    with uncast():
        found = live_analyst().measure(plan.unit, image, p.prompts[getattr(p, "batch_index", 0)])
    p.extra_generation_params[MEASURED_KEY] = Measured(found.described)
