"""Trials: a reference whose content is known, prompts that ask for something else, and the pictures that come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from lib_instantstyle.standalone import StandaloneHost

from .modes import Mode
from .world.drawing import draw
from .world.scenes import SUBJECTS, Scene, random_scene


@dataclass(frozen=True)
class Trial:
    """One reference with some prompts; the same seeds in every mode."""

    reference: Image.Image
    content: str  # what the reference shows
    prompts: tuple[str, ...]
    seed: int  # of the first prompt's noise; the others count up


@dataclass(frozen=True)
class WorldTrial(Trial):
    """A trial of the drawn world, where everything about the reference and the prompts is known."""

    scene: Scene  # the reference's
    subjects: tuple[str, ...]  # the prompts', none the reference's


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled."""

    steps: int = 12
    guidance: float = 3.0
    side: int | None = None  # pixels; None: the model's own


def held_out_trials(count: int, prompts: int, seed: int = 5) -> list[WorldTrial]:
    """References in styles that training never showed of their subject, each with some other subjects."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng, held_out=True) for _ in range(count)]
    return [_trial(scene, prompts, 1000 * number, rng) for number, scene in enumerate(scenes)]


def _trial(scene: Scene, count: int, seed: int, rng: np.random.Generator) -> WorldTrial:
    others = [subject for subject in SUBJECTS if subject != scene.subject]
    subjects = tuple(str(subject) for subject in rng.permutation(others)[:count])
    content = scene.caption(frozenset({"subject"}))
    return WorldTrial(draw(scene), content, tuple(f"a {subject}" for subject in subjects), seed, scene, subjects)


def pictures_of(host: StandaloneHost, trial: Trial, mode: Mode, sampling: Sampling) -> list[Image.Image]:
    """A picture for each prompt, drawn in one batch."""
    noise = [torch.Generator().manual_seed(trial.seed + number) for number in range(len(trial.prompts))]
    asked = {"num_inference_steps": sampling.steps, "guidance_scale": sampling.guidance, "generator": noise}
    size = {"width": sampling.side, "height": sampling.side} if sampling.side else {}
    with host.styled(mode.units(trial.reference, trial.content)) as pipe:
        return list(pipe(list(trial.prompts), **asked, **size).images)
