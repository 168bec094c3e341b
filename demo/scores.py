"""What pictures are measured by: the judge of the drawn world, or the similarities of an adapter's own CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from lib_instantstyle.reference.analysis import Analyst
from lib_instantstyle.standalone import StandaloneHost

from .modes import ORIGINAL_REMOVED
from .trials import Trial
from .world.judge import Judge, trained_judge

RESAMPLES = 2000
Values = dict[str, list[float]]  # by measure, one for each picture of a trial


class Gauge(Protocol):
    """Measures the pictures of one trial."""

    names: tuple[str, ...]

    def __call__(self, trial: Any, pictures: Sequence[Image.Image]) -> Values: ...


class JudgeGauge:
    """Whether the judge names the reference's palette and its texture, which are half of its style each, its subject
    (leak), its place and size (layout), and the prompt's subject (prompt)."""

    names = ("style", "palette", "texture", "leak", "prompt", "layout")

    def __init__(self, judge: Judge | None = None) -> None:
        self._judge = judge or trained_judge()

    def __call__(self, trial: Any, pictures: Sequence[Image.Image]) -> Values:
        seen, scene = self._judge.judge(pictures), trial.scene
        palette = [float(one.palette == scene.palette) for one in seen]
        texture = [float(one.texture == scene.texture) for one in seen]
        return {
            "style": [(colours + strokes) / 2 for colours, strokes in zip(palette, texture)],
            "palette": palette,
            "texture": texture,
            "leak": [float(one.subject == scene.subject) for one in seen],
            "prompt": [float(one.subject == subject) for one, subject in zip(seen, trial.subjects)],
            "layout": [float((one.place, one.size) == (scene.place, scene.size)) for one in seen],
        }


class ClipGauge:
    """Cosines in the adapter's CLIP: to the reference without its content (style), to the content (leak), to the
    prompt."""

    names = ("style", "leak", "prompt")

    def __init__(self, host: StandaloneHost) -> None:
        self._analyst = Analyst(host)

    def __call__(self, trial: Any, pictures: Sequence[Image.Image]) -> Values:
        (unit,) = ORIGINAL_REMOVED.units(trial.reference, trial.content)
        told = [self._analyst.measure(unit, made, prompt) for made, prompt in zip(pictures, trial.prompts)]
        leak = [one.content if one.content is not None else float("nan") for one in told]
        return {"style": [one.style for one in told], "leak": leak, "prompt": [one.prompt for one in told]}


@dataclass(frozen=True)
class Mean:
    """A mean over pictures, with the 95 % interval of a bootstrap over references: those of one are not independent."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})"


def mean(values: Sequence[Sequence[float]]) -> Mean:
    """`values`: for each reference, those of its pictures."""
    means = np.array([np.mean(one) for one in values])
    drawn = np.random.default_rng(0).integers(0, len(means), (RESAMPLES, len(means)))
    low, high = np.percentile(means[drawn].mean(axis=1), [2.5, 97.5])
    return Mean(float(means.mean()), float(low), float(high))


def scores(gauge: Gauge, trials: Sequence[Trial], pictures: Sequence[Sequence[Image.Image]]) -> dict[str, Mean]:
    """Each measure's mean over the pictures of the trials."""
    told = [gauge(trial, made) for trial, made in zip(trials, pictures)]
    return {name: mean([values[name] for values in told]) for name in gauge.names}


def table(told: Mapping[str, Mapping[str, Mean]]) -> str:
    """Names by measures: means with their 95 % intervals."""
    width = max(map(len, told)) + 2
    measures = list(next(iter(told.values())))
    lines = [" " * width + "".join(f"{name:<19}" for name in measures)]
    lines += [f"{name:<{width}}" + "".join(f"{row[key]!s:<19}" for key in measures) for name, row in told.items()]
    return "\n".join(line.rstrip() for line in lines)
