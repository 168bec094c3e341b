"""The demo on real models: SDXL, an IP-Adapter and its image encoder, and references of the user's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_instantstyle.standalone import Checkpoint, StandaloneHost
from lib_instantstyle.standalone.cli.references import open_picture
from lib_instantstyle.units.errors import InstantStyleError

from .trials import Sampling, Trial, held_out_trials

STEPS, GUIDANCE = 30, 5.0
NEEDS_MODEL = ("adapter", "encoder", "style", "content", "prompt")  # options that mean nothing to the world
PROMPTS = ("a cat", "a house by a lake", "a bowl of fruit", "a lighthouse")


def add_options(group: Any) -> None:
    """Add the options that name models and references."""
    group.add_argument("--model", metavar="FILE|DIR|ID", help="SDXL checkpoint, diffusers folder or Hub id")
    group.add_argument("--model-config", metavar="DIR|ID", help="what describes a checkpoint file")
    group.add_argument("--adapter", metavar="FILE", help="IP-Adapter for SDXL")
    group.add_argument("--encoder", metavar="FILE|DIR", help="the image encoder it reads")
    group.add_argument(
        "--style", action="append", type=Path, default=[], metavar="FILE", help="a reference; repeatable"
    )
    group.add_argument(
        "--content", action="append", default=[], metavar="TEXT", help="what it shows, in the same order"
    )
    group.add_argument("--steps", type=int, default=STEPS, help="sampling steps (default: 30)")
    group.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="what to draw; repeatable")


def open_own(options: argparse.Namespace) -> StandaloneHost:
    """The models that the options name. Raises InstantStyleError when one is missing."""
    if not (options.adapter and options.encoder):
        raise InstantStyleError("--model goes together with --adapter and --encoder. Give all three, or none.")
    path = Path(options.model).expanduser()
    model = Checkpoint(path, options.model_config) if path.is_file() else options.model
    return StandaloneHost.open(model, [options.adapter], [options.encoder])


def own_sampling(options: argparse.Namespace) -> Sampling:
    """How pictures of one's own models are sampled."""
    return Sampling(steps=options.steps, guidance=GUIDANCE)


def own_trials(options: argparse.Namespace) -> list[Trial]:
    """The user's references with the prompts, or drawn ones where none is given."""
    prompts = tuple(options.prompt) or PROMPTS
    if len(options.content) != len(options.style):
        raise InstantStyleError(
            f"Each --style needs one --content that says what it shows; got {len(options.style)} and "
            f"{len(options.content)}."
        )
    if not options.style:
        return [
            Trial(one.reference.resize((512, 512)), one.content, prompts, one.seed) for one in held_out_trials(4, 1)
        ]
    return list(_given(options.style, options.content, prompts))


def _given(styles: Sequence[Path], contents: Sequence[str], prompts: tuple[str, ...]) -> list[Trial]:
    return [
        Trial(open_picture(path).image, content, prompts, 1000 * number)
        for number, (path, content) in enumerate(zip(styles, contents))
    ]
