"""The training: open, encode, then step by step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accelerated import alike, make_accelerator, of_all, place_of, processes_here, together
from .cache import Cache
from .checkpoints import refuse_used
from .curve import Curve, bar, bars
from .materials import Materials, open_materials
from .run import Run
from .settings import Settings
from .towers import Moments


@dataclass(frozen=True)
class Outcome:
    """What came out of a training."""

    adapter: Path
    steps: int
    loss: float | None  # mean of the last hundred steps
    seconds: float  # that the steps of this run took
    blocks: tuple[str, ...]  # the groups
    skipped: dict[str, str]  # pictures that could not be read, by any process → why


def train(settings: Settings, moments: Moments | None = None) -> Outcome:
    """Train, from the start or from the latest checkpoint, and leave the adapter in the output folder.

    `moments` gives the latents of pictures in place of the base's VAE, for bases that were trained on others.
    Raises InstantStyleError when something cannot be honoured; files are looked at before models are opened.
    """
    with alike():
        settings.check()
    accelerator = make_accelerator(settings)
    materials = together(lambda: _opened(settings, accelerator, moments))
    if isinstance(materials.source, Cache):
        _fill(materials.source, accelerator, settings.quiet)
    run = Run(materials, accelerator)
    curve = Curve(settings.out / "loss.csv", run.start) if accelerator.is_main_process else None
    started = time.monotonic()
    with run:
        _go(run, settings, curve)
        seconds = time.monotonic() - started
        skipped = dict(of_all(list(materials.source.skipped.items())))
    loss = curve.recent if curve else None
    return Outcome(run.adapter_path, settings.steps, loss, seconds, settings.blocks, skipped)


def _opened(settings: Settings, accelerator: Any, moments: Moments | None) -> Materials:
    if not settings.resume:
        refuse_used(settings.out)
    return open_materials(settings, place_of(accelerator), moments)


def _fill(cache: Cache, accelerator: Any, quiet: bool) -> None:
    """Encode what is encoded once: each process of a machine its share, then one of them whatever is left."""
    first = accelerator.is_local_main_process
    shown, (share, of) = bars(quiet or not first), processes_here(accelerator)
    together(lambda: cache.fill(shown, share, of))
    together(lambda: cache.fill(shown) if first else None)
    together(cache.finish)


def _go(run: Run, settings: Settings, curve: Curve | None) -> None:
    with bar("steps", settings.steps, run.start, settings.quiet or curve is None) as shown:
        for step in range(run.start, settings.steps):
            began = time.monotonic()
            made = run.step(step)
            if curve is not None:
                curve.add(step + 1, made.loss, made.rate, made.group.name, time.monotonic() - began)
                shown.set_postfix(loss=f"{curve.recent:.4f}", refresh=False)
            run.log(step + 1, made)
            shown.update()
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                run.save(step + 1)
            if settings.sample_every and (step + 1) % settings.sample_every == 0:
                run.sample(step + 1)
