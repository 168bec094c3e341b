"""One run of a training on Accelerate: its steps, and its state on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...units.errors import InstantStyleError
from .accelerated import alike, together
from .batches import Batches
from .checkpoints import Checkpoints, State, check_same
from .draws import Draw, Split
from .groups import Group, drawn_group
from .materials import Materials
from .prediction import StyledPrediction
from .recipe import NoiseSchedule, loss_of, rate_at
from .sheets import draw_sheet

ADAPTER = "adapter.safetensors"  # the newest state of the adapter, in the output folder


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
        return self.settings.out / ADAPTER

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
        self.materials.adapter.save(self.adapter_path, self._told(step))

    def _pass(self, step: int, at: int, acting: frozenset[int]) -> torch.Tensor:
        draws = [Draw(self.settings.seed, number) for number in self.split.numbers(step, at)]
        given, target = self.batches.make(draws)
        with self.accelerator.accumulate(self.prediction):
            weights = self.batches.schedule.loss_weights(given.timesteps, self.settings.weighting)
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
                f"All processes must go on from the same checkpoint; they found steps {starts}. "
                "Share --out among the machines, or copy its checkpoints to each.",
                "out",
            )

    def _prepare(self, state: State | None) -> None:
        settings, materials = self.settings, self.materials
        self._hooked = StyledPrediction(materials.pipe.unet, materials.modules, materials.adapter)
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

    def _told(self, step: int) -> dict[str, str]:
        """The metadata of the adapter's file."""
        settings, files = self.settings, self.materials.files
        told = {
            "trained_with": f"sd-webui-instantstyle {__version__}",
            "base": Path(settings.base).name,
            "encoder": files.encoder.name,
            "kind": settings.kind,
            "blocks": ", ".join(f"{group.name}={group.share:g}" for group in self.materials.groups),
            "steps": str(step),
            "samples_per_step": str(self.split.samples),
            "size": str(settings.size),
            "rate": f"{settings.rate:g}",
            "weighting": settings.weighting,
            "seed": str(settings.seed),
        }
        return {**told, "init": files.init.name} if files.init else told


def _batches(materials: Materials, accelerator: Any) -> Batches:
    pipe = materials.pipe
    return Batches(
        materials.source,
        NoiseSchedule.of(pipe.scheduler),
        pipe.vae.config.scaling_factor,
        materials.towers.no_picture(),
        materials.settings,
        accelerator.device,
        pipe.unet.dtype,
    )
