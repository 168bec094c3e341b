"""What style costs in one cross attention of the style block, and how that grows: single layers fit small machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.key_values import ImageKeyValue
from lib_instantstyle.style.regions import Region
from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.units.schedule import Window

from .controlnet import LayerOfControlNet, why_missing
from .flops import META, flops
from .models import TEXT_TOKENS, Size, make_attention, marks
from .peers import attention_processor
from .report import Cell, Table
from .timing import Meter, Subject, compare, kernels, processor

STYLE_LEVEL, DOWNSAMPLING = 2, 32  # of the style block: the deepest level, a 32nd of the picture's side


@dataclass(frozen=True)
class Point:
    """What one measurement varies."""

    units: int = 1
    tokens: int = 4
    pixels: int = 1024
    batch: int = 1
    joined: str = "add"  # how ours joins the text's attention: a fusion
    region: bool = False  # in a part of the picture only
    guidance: float = 0.0  # led away from what unconditional rows see


@dataclass(frozen=True)
class Machine:
    """Where and how layers are measured."""

    size: Size
    device: torch.device
    dtype: torch.dtype
    rounds: int
    controlnet: Path | None = None

    @property
    def calls(self) -> int:
        """Of a layer in one measurement."""
        return 20 if self.device.type == "cuda" else 1

    @property
    def meter(self) -> Meter:
        return kernels if self.device.type == "cuda" else processor

    def repeated(self, work: Callable[[], object]) -> Callable[[], None]:
        def several() -> None:
            for _ in range(self.calls):
                work()

        return several


JOINED = {
    "added": Point(),
    "added in a region": Point(region=True),
    "adain": Point(joined="adain"),
    "adain in a region": Point(joined="adain", region=True),
    "guided": Point(guidance=2.0),
}
SERIES: dict[str, dict[str, Point]] = {
    "units of 4 tokens": {str(n): Point(units=n, pixels=512) for n in (1, 2, 3, 4, 6, 8)},
    "tokens of one unit": {str(n): Point(tokens=n, pixels=512) for n in (4, 16, 257)},
    "side of the picture": {f"{n} px": Point(pixels=n) for n in (512, 768, 1024, 1536, 2048)},
    "pictures at once": {str(n): Point(batch=n, pixels=512) for n in (1, 2, 4)},
    "ways to join the prompt": JOINED,
}


def grow(machine: Machine) -> list[Table]:
    """Each series as a table: the layer's time with style against the plain layer, in turns.

    On a GPU what it computes counts: a layer is so short there that a clock would see Python asking for it.
    """
    return [_series(machine, name, points) for name, points in SERIES.items()]


def _series(machine: Machine, name: str, points: dict[str, Point]) -> Table:
    rows: dict[str, dict[str, Cell]] = {}
    for label, point in points.items():
        layer = Layer(machine, point)
        timings = compare(layer.subjects(), machine.repeated(layer.run), machine.rounds, machine.meter)
        ratios: dict[str, Cell] = {who: one.ratio for who, one in timings.items() if who != "plain"}
        rows[label] = {"plain, ms": timings["plain"].seconds.median * 1e3 / machine.calls, **ratios}
    columns = {"plain, ms": ".3f", **dict.fromkeys(_measured(machine), ".3f")}
    note = f"Time of one cross attention against the plain one; {machine.rounds} rounds, median (quartiles)."
    return Table(f"growth: {name}", columns, rows, note + _left_out(machine))


def _measured(machine: Machine) -> tuple[str, ...]:
    return ("ours", "diffusers") if why_missing(machine.controlnet) else ("ours", "diffusers", "ControlNet")


def _left_out(machine: Machine) -> str:
    why = why_missing(machine.controlnet)
    return f" ControlNet not run: {why}." if why else ""


def count(size: Size) -> list[Table]:
    """Each series as FLOPs of the layer above the plain layer's, on shapes alone; ControlNet's are as ours."""
    machine = Machine(size, META, torch.float16, 0)
    return [_counted(machine, name, points) for name, points in SERIES.items()]


def _counted(machine: Machine, name: str, points: dict[str, Point]) -> Table:
    rows: dict[str, dict[str, Cell]] = {}
    for label, point in points.items():
        layer = Layer(machine, point)
        found = {who: _flops(subject, layer.run) for who, subject in layer.subjects().items()}
        more = {f"{who}, %": 100 * (found[who] / found["plain"] - 1) for who in ("ours", "diffusers")}
        rows[label] = {"plain, GFLOP": found["plain"] / 1e9, **more}
    columns = {"plain, GFLOP": ",.2f", "ours, %": ".2f", "diffusers, %": ".2f"}
    return Table(f"arithmetic: {name}", columns, rows, "One cross attention of the style block against the plain one.")


def _flops(subject: Subject, work: Callable[[], object]) -> int:
    subject.enter()
    try:
        return flops(work)
    finally:
        subject.leave()


def allocate(machine: Machine) -> Table:
    """Tensors that one layer makes on top of the plain layer, and their size: no clock is involved."""
    rows: dict[str, dict[str, Cell]] = {}
    for point in (Point(units=3), Point(units=8), Point(tokens=16), Point(tokens=257), *JOINED.values()):
        layer = Layer(machine, point)
        found = {who: _made(subject, layer.run) for who, subject in layer.subjects().items()}
        cells = {who: _on_top(made, found["plain"]) for who, made in found.items() if who != "plain"}
        named = [name for name, one in JOINED.items() if one == point]
        rows[", ".join([f"{point.units} × {point.tokens} tokens", *named])] = cells
    note = f"One layer of the style block at {Point.pixels}×{Point.pixels} with guidance: tensors, MiB."
    columns = dict.fromkeys(_measured(machine), "")
    return Table("made anew in each call", columns, rows, note + _left_out(machine))


def _on_top(made: tuple[int, int], plain: tuple[int, int]) -> str:
    return f"{made[0] - plain[0]}, {(made[1] - plain[1]) / 2**20:.2f}"


def _made(subject: Subject, work: Callable[[], object]) -> tuple[int, int]:
    subject.enter()
    try:
        work()  # what is made once for a job
        with Counting() as counted:
            work()
    finally:
        subject.leave()
    return counted.tensors, counted.bytes


class Counting(TorchDispatchMode):
    """Counts the tensors made by the kernels that run while it is on; views of what was there do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {_storage(x) for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)}
        made = [x for x in tree_flatten(out)[0] if isinstance(x, Tensor) and _storage(x) not in known]
        self.tensors += len(made)
        self.bytes += sum(x.numel() * x.element_size() for x in made)
        return out


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Layer:
    """One cross attention with its inputs, plain and with everybody's style in turns."""

    def __init__(self, machine: Machine, point: Point) -> None:
        self.machine, self.point = machine, point
        self.attn2: Any = make_attention(machine.size, STYLE_LEVEL, machine.device, machine.dtype)
        self.rows, side = 2 * point.batch, point.pixels // DOWNSAMPLING
        self.x = self._random(self.rows, side * side, machine.size.channels[STYLE_LEVEL])
        self.context: Any = self._random(self.rows, TEXT_TOKENS, machine.size.context)

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.machine.device, dtype=self.machine.dtype)

    @torch.no_grad()
    def run(self) -> None:
        self.attn2(self.x, encoder_hidden_states=self.context)

    def subjects(self) -> dict[str, Subject]:
        """The plain layer first; ControlNet's only where it was given."""
        found = {"plain": Subject(), "ours": self._ours(), "diffusers": self._diffusers()}
        if why_missing(self.machine.controlnet):
            return found
        theirs = LayerOfControlNet(self.machine.controlnet, self.attn2, self.point.tokens, self.point.units)
        return {**found, "ControlNet": theirs.subject(marks(self.rows))}

    def _ours(self) -> Subject:
        width = self.x.shape[-1]
        pair = torch.randn(2, 2, self.point.tokens, width)
        region = Region(torch.rand(1, 1, 512, 512)) if self.point.region else None
        how = {"fusion": self.point.joined, "region": region, "guidance": self.point.guidance}
        one = ImageKeyValue(pair[0], pair[1], 1.0, Window(), **how)
        side = self.point.pixels // DOWNSAMPLING
        call = ModelCall(cond_rows=marks(self.rows), size=(4 * side, 4 * side))  # the latent's
        styled = StyledLayer(self.attn2, (one,) * self.point.units, call)

        def enter() -> None:
            styled.attach()
            styled.acting(self.x)  # lays keys and values out, once for a job

        return Subject(enter, styled.detach)

    def _diffusers(self) -> Subject:
        size, point, plain = self.machine.size, self.point, AttnProcessor2_0()
        theirs = attention_processor(self.x.shape[-1], size.context, point.tokens, point.units, self.x)
        tokens = [self._random(self.rows, 1, point.tokens, size.context) for _ in range(point.units)]
        text = self.context

        def enter() -> None:
            self.attn2.set_processor(theirs)
            self.context = (text, tokens)

        def leave() -> None:
            self.attn2.set_processor(plain)
            self.context = text

        return Subject(enter, leave)
