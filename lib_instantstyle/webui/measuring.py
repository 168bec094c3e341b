"""Analysing references and measuring results inside the WebUI: when it is our turn, and what a picture's text says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from PIL import Image

from modules import shared
from modules.call_queue import queue_lock
from modules.fifo_lock import FIFOLock

from ..reference.analysis import Analyst
from ..units.errors import InstantStyleError
from ..units.unit import StyleUnit
from .hosts.a1111_casting import uncast
from .job import StyleJob, live_job

MEASURED_KEY = "InstantStyle measured"

log = logging.getLogger("InstantStyle")
_short_looks = FIFOLock()


@cache
def live_analyst() -> Analyst:
    """The one analyst of the process; it reads with the same host as the job."""
    return Analyst(live_job().host)


@contextmanager
def analyst_in_turn() -> Iterator[Analyst]:
    """The analyst, once all jobs before us in the WebUI's own queue are done; the next waits until we are.

    Not to be used inside a job, which holds the queue's lock itself.
    """
    with queue_lock, uncast():
        yield live_analyst()


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
    plan = next((plan for plan in job.plans if plan.scales), None)
    if plan is None:
        return
    with uncast():
        found = live_analyst().measure(plan.unit, image, p.prompts[getattr(p, "batch_index", 0)])
    p.extra_generation_params[MEASURED_KEY] = Measured(found.described)
