"""What a demo is drawn with: the world that ships with the project, or models of the user's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lib_instantstyle.standalone import StandaloneHost
from lib_instantstyle.units.errors import InstantStyleError

from .learned import Learner
from .modes import Mode
from .own_models import NEEDS_MODEL, add_options, open_own, own_sampling, own_trials
from .scores import ClipGauge, Gauge, JudgeGauge
from .trials import Sampling, Trial, held_out_trials, pictures_of
from .world.host import open_world

WORLD_LORA: dict[str, Any] = {"steps": 150, "rate": 1e-3}  # of a B-LoRA


@dataclass(frozen=True, eq=False)
class Setup:
    """Models, what measures their pictures, and what is drawn with them."""

    host: StandaloneHost
    gauge: Gauge
    sampling: Sampling
    trials: Sequence[Trial]
    learner: Learner

    def prepare(self, trial: Trial, mode: Mode) -> StandaloneHost:
        """What draws the trial's pictures; a B-LoRA is trained first."""
        return self.learner.host_of(trial) if mode.learns else self.host

    def draw(self, trial: Trial, mode: Mode) -> list[Image.Image]:
        """A picture for each of the trial's prompts."""
        return pictures_of(self.prepare(trial, mode), trial, mode, self.sampling)


def add_setup_options(parser: argparse.ArgumentParser, references: int, prompts: int) -> None:
    """Add the options that `open_setup` reads; the numbers are the world's defaults."""
    parser.add_argument(
        "--references", type=int, default=references, help=f"references of the world (default: {references})"
    )
    parser.add_argument(
        "--prompts", type=int, default=prompts, help=f"prompts for each, 9 at most (default: {prompts})"
    )
    told = "(default: the published {}; {} in the world, which is small)"
    parser.add_argument(
        "--lora-steps",
        type=int,
        metavar="N",
        help=f"of the B-LoRAs' trainings {told.format(1000, WORLD_LORA['steps'])}",
    )
    parser.add_argument(
        "--lora-rate", type=float, metavar="X", help=f"their learning rate {told.format(5e-5, WORLD_LORA['rate'])}"
    )
    add_options(parser.add_argument_group("models of yours"))


def open_setup(options: argparse.Namespace) -> Setup:
    """What the options name. Raises InstantStyleError when something asked for cannot be honoured."""
    if options.model:
        trials, host = own_trials(options), open_own(options)
        return Setup(host, ClipGauge(host), own_sampling(options), trials, _learner(options, host, options.model))
    alone = [f"--{name}" for name in NEEDS_MODEL if getattr(options, name)]
    if alone:
        raise InstantStyleError(f"{', '.join(alone)} goes together with --model, which was not given. Name one.")
    world = open_world(options.out / "models")
    trials = held_out_trials(options.references, options.prompts)
    return Setup(world, JudgeGauge(), Sampling(), trials, _learner(options, world, None))


def _learner(options: argparse.Namespace, host: StandaloneHost, base: str | None) -> Learner:
    given = {"steps": options.lora_steps, "rate": options.lora_rate, "base_config": options.model_config}
    own = {name: one for name, one in given.items() if one is not None}
    return Learner(host, options.out / "loras", base, own if base else {**WORLD_LORA, **own})
