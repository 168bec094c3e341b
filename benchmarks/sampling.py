"""What style adds to a UNet call, in time and on the GPU in memory: ours by preset and number of units, and others'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.unit import StyleUnit

from .controlnet import ControlNet, ControlNetMissing
from .host import BenchHost
from .models import marks
from .peers import SCALES, DiffusersAdapter
from .report import Cell, Table, not_run
from .timing import Meter, Subject, compare, kernels, processor, wall


@dataclass
class Bench:
    """A UNet call with guidance, and the session that styles it."""

    unet: UNet2DConditionModel
    inputs: dict[str, Any]
    steps: int  # UNet calls in one measurement
    folder: Path

    def __post_init__(self) -> None:
        self.session = StyleSession(BenchHost(self.unet, self.folder, self.folder / "cache"))
        self.rows = marks(self.inputs["sample"].shape[0])

    def run(self) -> None:
        for _ in range(self.steps):
            self.call()

    @torch.no_grad()
    def call(self) -> None:
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


@dataclass
class Contest:
    """The plain UNet and everybody who styles it."""

    bench: Bench
    subjects: dict[str, Subject]
    resident: dict[str, Callable[[], int]]  # bytes that somebody has on the device while others have their turn, too
    missing: dict[str, dict[str, Cell]]  # rows of who could not take part

    @property
    def on_gpu(self) -> bool:
        return self.bench.unet.device.type == "cuda"

    def time(self, rounds: int) -> Table:
        """A UNet call under each configuration, the plain one first, as somebody waits for it."""
        note = f"{self.bench.steps} UNet calls a measurement, {rounds} rounds; median (quartiles)."
        return self._table("sampling", wall if self.on_gpu else processor, rounds, note)

    def compute(self, rounds: int) -> Table:
        """The same, but only what the GPU computes."""
        if not self.on_gpu:
            return _needs_gpu("computed by the GPU")
        note = f"Time of all kernels of {self.bench.steps} UNet calls, {rounds} rounds; median (quartiles)."
        return self._table("computed by the GPU", kernels, rounds, note)

    def occupy(self) -> Table:
        """Memory on the GPU above the plain UNet's: what stays for the job, and how much more a call takes."""
        if not self.on_gpu:
            return _needs_gpu("memory of the GPU")
        seen = {name: self._occupied(subject) for name, subject in self.subjects.items()}
        resident = {who: of_them() for who, of_them in self.resident.items()}
        plain = seen["plain UNet"]
        rows: dict[str, dict[str, Cell]] = {}
        for name, (kept, more) in seen.items():
            kept += resident.get(name.split(",")[0], 0)
            rows[name] = {"MiB kept": (kept - plain[0]) / 2**20, "MiB more in a call": (more - plain[1]) / 2**20}
        return Table("memory of the GPU", {"MiB kept": ",.2f", "MiB more in a call": ",.1f"}, {**rows, **self.missing})

    def _occupied(self, subject: Subject) -> tuple[int, int]:
        """Bytes that are taken between two calls, and at the peak of one on top of them."""
        try:
            subject.enter()
            self.bench.run()
            between = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.bench.run()
            return between, torch.cuda.max_memory_allocated() - between
        finally:
            subject.leave()

    def _table(self, name: str, meter: Meter, rounds: int, note: str) -> Table:
        subjects = {name: self._begun(subject) for name, subject in self.subjects.items()}
        timings = compare(subjects, self.bench.run, rounds, meter)
        rows = {name: {"time against plain": one.ratio, "seconds": one.seconds} for name, one in timings.items()}
        return Table(name, {"time against plain": ".4f", "seconds": ".4f"}, {**rows, **self.missing}, note)

    def _begun(self, subject: Subject) -> Subject:
        """After the first call of a job: what is laid out in it serves all others."""

        def enter() -> None:
            subject.enter()
            self.bench.call()

        return Subject(enter, subject.leave)


def contest(bench: Bench, adapter: dict[str, dict[str, Tensor]], controlnet: Path | None) -> Contest:
    """Everybody is made ready; whoever's turn it is gets attached."""
    subjects = _ours(bench)
    peer = DiffusersAdapter(bench.unet, bench.inputs, adapter)
    subjects |= {f"diffusers, {preset}": bench.diffusers(peer, preset) for preset in SCALES}
    resident = {"diffusers": lambda: peer.resident}
    try:
        theirs = ControlNet(controlnet, bench.unet, adapter)
    except ControlNetMissing as error:
        return Contest(bench, subjects, resident, {"ControlNet": not_run(str(error))})
    for preset, weights in theirs.WEIGHTS.items():
        subjects[f"ControlNet, {preset}"] = theirs.subject(weights, bench.rows)
    return Contest(bench, subjects, {**resident, "ControlNet": lambda: theirs.on_device}, {})


def _needs_gpu(name: str) -> Table:
    return Table(name, {"": ""}, {"all": not_run("--device is no GPU")})


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
