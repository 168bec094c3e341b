"""The training: open, encode, then step by step on Accelerate, with its state on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...units.errors import InstantStyleError, log
from .accelerated import alike, make_accelerator, of_all, place_of, processes_here, together
from .batches import Batches, ExampleSource
from .checkpoints import Checkpoints, State, check_same, metadata, refuse_used
from .curve import Curve, bar, bars
from .draws import Draw, Split
from .frozen_encoders import Moments
from .groups import Group, drawn_group
from .lora import FILE
from .materials import Materials, open_materials
from .prediction import prediction_of
from .recipe import loss_of, loss_weights, noise_schedule, rate_at
from .settings import B_LORA, Settings
from .sheets import draw_sheet

ADAPTER = "adapter.safetensors"  # the newest state of the adapter, in the output folder


@dataclass(frozen=True)
class Outcome:
    """What came out of a training."""

    adapter: Path
    steps: int
    loss: float | None  # mean of the last hundred steps
    seconds: float  # that the steps of this run took
    blocks: tuple[str, ...]  # the groups
    skipped: dict[str, str]  # pictures that could not be read, by any process → why
    warnings: tuple[str, ...]  # what should be known of the data, also said before the first step


def train(settings: Settings, moments: Moments | None = None) -> Outcome:
    """Train, from the start or from the latest checkpoint, and leave the adapter in the output folder.

    `moments` gives the latents of pictures in place of the base's VAE, for bases that were trained on others.
    Raises InstantStyleError when something cannot be honoured; files are looked at before models are opened.
    """
    with alike():
        settings.check()
    accelerator = make_accelerator(settings)
    materials = together(lambda: _opened(settings, accelerator, moments))
    if accelerator.is_main_process:
        for message in materials.warnings:
            log.warning(message)
    _encode(materials.source, accelerator, settings.quiet)
    run = Run(materials, accelerator)
    curve = Curve(settings.out / "loss.csv", run.start) if accelerator.is_main_process else None
    started = time.monotonic()
    with run:
        _go(run, settings, curve)
        seconds = time.monotonic() - started
        skipped = dict(of_all(list(materials.source.skipped.items())))
    loss = curve.recent if curve else None
    return Outcome(run.adapter_path, settings.steps, loss, seconds, settings.blocks, skipped, materials.warnings)


def _opened(settings: Settings, accelerator: Any, moments: Moments | None) -> Materials:
    if not settings.resume:
        refuse_used(settings.out)
    return open_materials(settings, place_of(accelerator), moments)


def _encode(source: ExampleSource, accelerator: Any, quiet: bool) -> None:
    """Encode what is encoded once: each process of a machine its share, then one of them whatever is left."""
    first = accelerator.is_local_main_process
    shown, (share, of) = bars(quiet or not first), processes_here(accelerator)
    together(lambda: source.fill(shown, share, of))
    together(lambda: source.fill(shown) if first else None)
    together(source.finish)


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


@dataclass(frozen=True)
class Step:
    """What one step of the optimizer came to."""

    loss: float  # mean over all samples of all processes
    rate: float
    group: Group


class Run:
    """While it is entered, the adapter that learns hangs on the UNet."""

    def __init__(self, materials: Materials, accelerator: Any) -> None:
        """Goes on from the latest checkpoint if that is wanted. Raises InstantStyleError if it is of another run."""
        self.materials, self.accelerator, self.settings = materials, accelerator, materials.settings
        processes = (accelerator.process_index, accelerator.num_processes)
        self.split = Split(self.settings.batch, *processes, self.settings.accumulate)
        self.identity = together(lambda: materials.identity(self.split.samples, accelerator.num_processes))
        self.checkpoints = Checkpoints(self.settings.out, self.settings.keep)
        state = together(self._latest)
        self.start = int(state["step"]) if state is not None else 0
        with alike():
            self._check_starts()
        self._prepare(state)
        self.batches = _batches(materials, accelerator)

    def __enter__(self) -> Run:
        self._hooked.attach()
        self.accelerator.init_trackers("logs")
        return self

    def __exit__(self, *_: object) -> None:
        self._hooked.detach()
        self.accelerator.end_training()
        self.accelerator.free_memory()

    @property
    def adapter_path(self) -> Path:
        return self.settings.out / (FILE if self.settings.kind == B_LORA else ADAPTER)

    def step(self, step: int) -> Step:
        """One step of the optimizer, counted from 0: all its passes."""
        rate, group = rate_at(step, self.settings), drawn_group(self.materials.groups, self.settings.seed, step)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        acting = frozenset(layer.index for layer in group.layers)
        losses = [self._pass(step, at, acting) for at in range(self.split.passes)]
        loss = self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean")
        return Step(float(loss), rate, group)

    def log(self, step: int, made: Step) -> None:
        """Tell TensorBoard, if it is installed."""
        self.accelerator.log({"loss": made.loss, "rate": made.rate, f"loss of {made.group.name}": made.loss}, step=step)

    def save(self, step: int) -> None:
        """Write the checkpoint and the adapter of a step counted from 1."""
        positions = self._positions()
        if self.accelerator.is_main_process:
            self._export(step)
            self.checkpoints.save(step, self._state(positions))

    def sample(self, step: int) -> None:
        """Draw a sheet with the adapter of a step counted from 1."""
        if self.accelerator.is_main_process:
            self._export(step)
            draw_sheet(self.materials, self.adapter_path, step)

    def _export(self, step: int) -> None:
        told = metadata(self.materials, step, self.split.samples)
        self.materials.adapter.save(self.adapter_path, told)

    def _pass(self, step: int, at: int, acting: frozenset[int]) -> torch.Tensor:
        draws = [Draw(self.settings.seed, number) for number in self.split.numbers(step, at)]
        given, target = self.batches.make(draws)
        with self.accelerator.accumulate(self.prediction):
            weights = loss_weights(self.batches.schedule, given.timesteps, self.settings.weighting)
            loss = loss_of(self.prediction(given, acting), target, weights)
            self.accelerator.backward(loss)
            if self.settings.clip and self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.prediction.parameters(), self.settings.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)  # a zero would let AdamW move the layers that did not act
        return loss.detach()

    def _latest(self) -> State | None:
        """The checkpoint to go on from, with the adapter set to it."""
        state = self.checkpoints.latest() if self.settings.resume else None
        if state is not None:
            check_same(state["identity"], self.identity)
            self.materials.adapter.load_state_dict(state["adapter"])
        return state

    def _check_starts(self) -> None:
        """Raise InstantStyleError where machines do not see the same checkpoints."""
        starts = self.accelerator.gather(torch.tensor([self.start], device=self.accelerator.device)).tolist()
        if len(set(starts)) > 1:
            raise InstantStyleError(
                f"All processes must continue from the same checkpoint; they found steps {starts}. "
                "Share --out among the machines, or copy its checkpoints to each.",
                "out",
            )

    def _prepare(self, state: State | None) -> None:
        settings, materials = self.settings, self.materials
        self._hooked = prediction_of(materials.pipe.unet, materials.modules, materials.adapter)
        parameters = materials.adapter.parameters()
        optimizer = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=settings.weight_decay)
        self.prediction, self.optimizer = self.accelerator.prepare(self._hooked, optimizer)
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            if state["positions"]:
                materials.source.seek(state["positions"][self.accelerator.process_index])

    def _positions(self) -> list[list[int]]:
        """Where each process stands in the data, as far as the draws do not say it."""
        own = self.materials.source.position()
        if not own:
            return []
        gathered: list[list[int]] = self.accelerator.gather(
            torch.tensor([own], device=self.accelerator.device)
        ).tolist()
        return gathered

    def _state(self, positions: list[list[int]]) -> State:
        scaler = self.accelerator.scaler
        return {
            "identity": self.identity,
            "adapter": self.materials.adapter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "positions": positions,
        }


def _batches(materials: Materials, accelerator: Any) -> Batches:
    pipe = materials.pipe
    return Batches(
        materials.source,
        noise_schedule(pipe.scheduler),
        pipe.vae.config.scaling_factor,
        materials.encoders.no_picture(),
        materials.settings,
        accelerator.device,
        pipe.unet.dtype,
    )
