"""Taking turns: time several subjects round by round and compare each with the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """How a subject compares with the first one, round by round."""

    median: float
    low: float  # lower quartile
    high: float  # upper quartile

    def __str__(self) -> str:
        return f"{self.median:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class Subject:
    """Something to time: `enter` puts it in place, `leave` takes it away, neither is timed."""

    enter: Callable[[], object]
    leave: Callable[[], object]


def compare(subjects: Mapping[str, Subject], work: Callable[[], object], rounds: int) -> dict[str, Ratio]:
    """Seconds of `work` under every subject as ratios to the first; the order turns with every round."""
    names = list(subjects)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            took = _seconds(subjects[name], work)
            if number:  # the first round warms up
                seconds[name].append(took)
    return {name: _ratio(seconds[name], seconds[names[0]]) for name in names}


def _seconds(subject: Subject, work: Callable[[], object]) -> float:
    subject.enter()
    try:
        _wait()
        started = time.perf_counter()
        work()
        _wait()
        return time.perf_counter() - started
    finally:
        subject.leave()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _ratio(ours: list[float], base: list[float]) -> Ratio:
    ratios = [one / other for one, other in zip(ours, base)]
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Ratio(median, low, high)
