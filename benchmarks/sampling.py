"""How much longer a UNet call takes with style: ours by preset and number of units, others' IP-Adapters beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from lib_instantstyle.core.units import StyleUnit
from lib_instantstyle.session import StyleSession
from tests.tiny.host import TinyHost

from .controlnet import ControlNet, ControlNetMissing
from .models import EMBED_DIM, marks
from .peers import SCALES, DiffusersAdapter
from .report import Cell, Table, not_run
from .timing import Subject, clock_for, compare


@dataclass
class Bench:
    """A UNet call with guidance, and the session that styles it."""

    unet: UNet2DConditionModel
    inputs: dict[str, Any]
    steps: int  # UNet calls in one measurement; laying out keys and values happens in the first of them
    folder: Path

    def __post_init__(self) -> None:
        self.session = StyleSession(TinyHost(self.unet, self.folder, self.folder / "cache", EMBED_DIM))
        self.rows = marks(self.inputs["sample"].shape[0])

    @torch.no_grad()
    def run(self) -> None:
        for _ in range(self.steps):
            self.unet(**self.inputs)

    def ours(self, *units: StyleUnit) -> Subject:
        """The units planned now, attached when it is their turn."""
        plans = self.session.plan(units)

        def enter() -> None:
            self.session.attach(plans)
            self.session.call.cond_rows = self.rows

        return Subject(enter, self.session.detach)

    def diffusers(self, peer: DiffusersAdapter, preset: str) -> Subject:
        return Subject(lambda: peer.enter(SCALES[preset]), peer.leave)


def measure(bench: Bench, adapter: dict[str, dict[str, Tensor]], rounds: int, controlnet: Path | None) -> Table:
    """A UNet call under each configuration, the plain one first."""
    subjects = _ours(bench)
    peer = DiffusersAdapter(bench.unet, bench.inputs, adapter)
    subjects |= {f"diffusers, {preset}": bench.diffusers(peer, preset) for preset in SCALES}
    missing: dict[str, dict[str, Cell]] = {}
    try:
        theirs = ControlNet(controlnet, bench.unet, adapter)
        for preset, weights in theirs.WEIGHTS.items():
            subjects[f"ControlNet, {preset}"] = theirs.subject(weights, bench.rows)
    except ControlNetMissing as error:
        missing["ControlNet"] = not_run(str(error))
    timings = compare(subjects, bench.run, rounds, clock_for(bench.unet.device))
    rows = {name: {"time against plain": one.ratio, "seconds": one.seconds} for name, one in timings.items()}
    note = f"{bench.steps} UNet calls a measurement, {rounds} rounds; median (quartiles)."
    return Table("sampling", {"time against plain": ".4f", "seconds": ".3f"}, {**rows, **missing}, note)


def _ours(bench: Bench) -> dict[str, Subject]:
    unit: Callable[..., StyleUnit] = lambda seed=0, **fields: StyleUnit(image=(picture(seed),), **fields)  # noqa: E731
    return {
        "plain UNet": Subject(),
        "style, one unit": bench.ours(unit()),
        "style + layout, one unit": bench.ours(unit(preset="style_and_layout")),
        "style, three units": bench.ours(unit(0), unit(1), unit(2)),
        "original (all 70 layers), one unit": bench.ours(unit(preset="original")),
    }


def picture(seed: int) -> Image.Image:
    """A picture that is another one for every seed."""
    return Image.new("RGB", (32, 32), (seed * 40 % 256, 90, 160))
