"""Taking turns: time several subjects round by round and compare each with the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Meter = Callable[[Callable[[], object]], float]  # does a piece of work; the seconds it took


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float  # lower quartile
    high: float  # upper quartile

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"

    def apart_from(self, value: float) -> bool:
        """Whether `value` lies outside the quartiles; if not, nothing can be said."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class Timing:
    """How long a subject takes."""

    seconds: Spread
    ratio: Spread  # to the first subject, round by round


@dataclass(frozen=True)
class Subject:
    """Something to time: `enter` puts it in place, `leave` takes it away, also what was put in place in part.

    Neither is timed.

    `work` is what is timed; where it is None, what all subjects have in common.
    """

    enter: Callable[[], object] = lambda: None
    leave: Callable[[], object] = lambda: None
    work: Callable[[], object] | None = None


def by_clock(clock: Callable[[], float]) -> Meter:
    """Seconds that pass on `clock` until the work is done, on the GPU too."""

    def seconds(work: Callable[[], object]) -> float:
        _wait()
        started = clock()
        work()
        _wait()
        return clock() - started

    return seconds


wall = by_clock(time.perf_counter)
processor = by_clock(time.process_time)  # of this process alone, so that others' work hardly counts


def kernels(work: Callable[[], object]) -> float:
    """Seconds that the GPU computed, by torch's profiler: how long Python takes to ask for it does not count."""
    if not torch.cuda.is_available():
        raise RuntimeError("There is no GPU whose work could be measured.")
    _wait()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        work()
        _wait()
    busy = sum(event.time_range.elapsed_us() for event in seen.events() if event.device_type == DeviceType.CUDA)
    if not busy:
        raise RuntimeError("torch's profiler saw no work on the GPU.")
    return busy / 1e6


def compare(
    subjects: Mapping[str, Subject],
    work: Callable[[], object],
    rounds: int,
    meter: Meter = wall,
) -> dict[str, Timing]:
    """Seconds of `work` under every subject, and as ratios to the first; the order turns with every round."""
    names = list(subjects)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            took = _seconds(subjects[name], work, meter)
            if number:  # the first round warms up
                seconds[name].append(took)
    return {name: Timing(spread(own), spread(ratios(own, seconds[names[0]]))) for name, own in seconds.items()}


def _seconds(subject: Subject, work: Callable[[], object], meter: Meter) -> float:
    try:
        subject.enter()
        return meter(subject.work or work)
    finally:
        subject.leave()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratios(ours: Iterable[float], base: Iterable[float]) -> list[float]:
    """Round by round: what slows a whole round cancels."""
    return [one / other for one, other in zip(ours, base)]


def spread(values: list[float]) -> Spread:
    """Median and quartiles of what was measured; nothing is extrapolated."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Spread(median, low, high)
