"""Train an IP-Adapter for chosen blocks, or a B-LoRA from one picture, on a frozen SDXL model by the official recipe.

The same command runs on one CPU, on one GPU, and under `accelerate launch -m` on many of them.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..training.accelerated import is_first
from ..training.settings import B_LORA, B_LORA_RECIPE, KINDS, PRECISIONS, SCHEDULES, WEIGHTINGS, Settings
from .output import Report, complain

# Options that fill a setting of the same name: name, type, what it is. Defaults are the setting's own.
NUMBERS: tuple[tuple[str, Any, str], ...] = (
    ("steps", int, "steps of the optimizer"),
    ("batch", int, "pictures per process and pass"),
    ("accumulate", int, "passes per step"),
    ("rate", float, "learning rate"),
    ("weight_decay", float, "weight decay of AdamW"),
    ("warmup", int, "steps in which the rate rises from 0"),
    ("clip", float, "clip the gradient to this norm; 0: off"),
    ("noise_offset", float, "shift each channel's noise by a random amount of this size"),
    ("drop_image", float, "share of samples without the image prompt"),
    ("drop_text", float, "share of samples without the text prompt"),
    ("drop_both", float, "share of samples without both"),
    ("size", int, "side of a picture in pixels (default: the model's own)"),
    ("tokens", int, "tokens per image prompt (default: 4 for base, 16 for plus)"),
    ("rank", int, "rank of a B-LoRA"),
    ("seed", int, "seed of everything random"),
    ("workers", int, "threads that read pictures"),
    ("save_every", int, "steps between checkpoints"),
    ("keep", int, "checkpoints kept"),
    ("sample_every", int, "steps between sheets of sample pictures; 0: none"),
    ("sample_steps", int, "sampling steps of the samples"),
    ("sample_guidance", float, "CFG scale of the samples"),
)
SMALLER = (
    "Use fewer pictures at once (--batch 1; --accumulate keeps their number per step), use --precision bf16, make "
    "them smaller (--size), or use --cpu."
)
_DEFAULTS = {field.name: field.default for field in fields(Settings)}


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("train", help="train an adapter for chosen blocks", description=__doc__)
    _add_files(parser)
    for name, kind, told in NUMBERS:
        option, value = f"--{name.replace('_', '-')}", "N" if kind is int else "X"
        parser.add_argument(option, dest=name, type=kind, metavar=value, help=told + _default_told(name))
    parser.add_argument(
        "--kind", choices=[*KINDS, B_LORA], default="base", help="which image projection, or b-lora (default: base)"
    )
    parser.add_argument("--prompt", metavar="TEXT", help=f"b-lora: what the picture shows{_default_told('prompt')}")
    parser.add_argument(
        "--schedule", choices=SCHEDULES, default="constant", help="schedule of the learning rate (default: constant)"
    )
    parser.add_argument(
        "--weighting", choices=WEIGHTINGS, default="noise", help="weighting of the loss (default: noise)"
    )
    parser.add_argument("--cosine", dest="schedule", action="store_const", const="cosine", help="--schedule cosine")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="mixed precision (default: as accelerate is configured)"
    )
    _add_switches(parser)
    parser.set_defaults(run=run, smaller=SMALLER, answers=is_first)


def _add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", required=True, metavar="FILE|DIR|ID", help="the SDXL model, which stays frozen")
    parser.add_argument("--base-config", metavar="DIR|ID", help="configuration of a checkpoint file, if not beside it")
    parser.add_argument(
        "--encoder", type=Path, metavar="FILE|DIR", help="CLIP image encoder, frozen too; not for b-lora"
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="DIR|SHARDS|FILE", help="pictures with captions, or one picture"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder for the adapter, checkpoints and samples"
    )
    parser.add_argument(
        "--blocks",
        action="append",
        nargs="+",
        metavar="NAME[=SHARE]",
        help="presets or block addresses that act together (default: style; b-lora: the two blocks of the paper); if "
        "repeated, each step trains one group, chosen by its share",
    )
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from this adapter")
    parser.add_argument(
        "--sample-prompt",
        dest="sample_prompts",
        action="append",
        default=[],
        metavar="TEXT",
        help="prompt of the samples; may be repeated",
    )


def _add_switches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--resume", action="store_true", help="continue from the latest checkpoint in --out")
    parser.add_argument(
        "--no-cache", dest="cache", action="store_false", help="encode pictures every time they are used"
    )
    parser.add_argument("--random-crop", action="store_true", help="crop at random places; needs --no-cache")
    parser.add_argument("--cpu", action="store_true", help="run on the CPU even if there is a GPU")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(options: argparse.Namespace) -> Report:
    """Train. Raises InstantStyleError when something asked for cannot be honoured."""
    from ..training import train

    outcome = train(settings_of(options))
    for message in outcome.skipped.values() if options.answers() else ():
        complain(f"skipped: {message}")
    loss = "" if outcome.loss is None else f", loss {outcome.loss:.4f} (mean of the last 100 steps)"
    text = f"{outcome.adapter}\n{outcome.steps} steps of {', '.join(outcome.blocks)}{loss}"
    return Report(text, {**asdict(outcome), "adapter": str(outcome.adapter)})


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the options say; what they leave out is the recipe's."""
    given = {name: getattr(options, name) for name in _DEFAULTS if getattr(options, name) is not None}
    given["sample_prompts"] = tuple(options.sample_prompts)
    if options.blocks:
        given["blocks"] = tuple("+".join(words) for words in options.blocks)
    recipe = B_LORA_RECIPE if options.kind == B_LORA else {}
    return Settings(**{"encoder": None, **recipe, **given})


def _default_told(name: str) -> str:
    default, other = _DEFAULTS[name], B_LORA_RECIPE.get(name)
    return "" if default is None else f" (default: {default}{'' if other is None else f'; b-lora: {other}'})"
