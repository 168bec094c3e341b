"""How long it takes until the first step: nothing known yet, pictures encoded before, everything computed before.

Files lie in the system's page cache for everybody, as after a first use.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import CLIPVisionModelWithProjection

from lib_instantstyle.files.preprocessing import preprocess
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.routing import STYLE_BLOCK
from lib_instantstyle.units.unit import StyleUnit

from .controlnet import ControlNet, ControlNetMissing
from .memory import Files
from .peers import loaded
from .report import Cell, Table, not_run
from .sampling import picture
from .timing import Subject, compare

COLD, ENCODED, KNOWN = "cold", "picture encoded before", "everything computed before"


def measure(files: Files, encoder: str, rounds: int, controlnet: Path | None) -> Table:
    """Seconds of everybody's three states, in turns."""
    subjects = {f"ours, {state}": one for state, one in _ours(files).items()}
    subjects |= {f"diffusers, {state}": one for state, one in _diffusers(files).items()}
    missing: dict[str, dict[str, Cell]] = {}
    try:
        subjects |= {f"ControlNet, {state}": one for state, one in _controlnet(files, controlnet).items()}
    except ControlNetMissing as error:
        missing["ControlNet"] = not_run(str(error))
    timings = compare(subjects, lambda: None, rounds)
    rows = {name: {"seconds": one.seconds, "against ours, cold": one.ratio} for name, one in timings.items()}
    note = f"Preset style, one unit, encoder {encoder}; {rounds} rounds, median (quartiles)."
    return Table("until the first step", {"seconds": ".3f", "against ours, cold": ".3f"}, {**rows, **missing}, note)


def _ours(files: Files) -> dict[str, Subject]:
    unit, cache = StyleUnit(image=(picture(0),)), files.folder / "cache-of-starting"
    known = StyleSession(files.host(cache))
    attach(known, unit)
    empty = cache.with_name("cache-that-is-empty")
    return {
        COLD: _work(lambda: attach(StyleSession(files.host(empty)), unit), lambda: shutil.rmtree(empty, True)),
        ENCODED: _work(lambda: attach(StyleSession(files.host(cache)), unit)),
        KNOWN: _work(lambda: attach(known, unit)),
    }


def attach(session: StyleSession, unit: StyleUnit) -> None:
    """What a job does before its first step."""
    session.attach(session.plan((unit,)))
    session.detach()


def _diffusers(files: Files) -> dict[str, Subject]:
    """Loading is `load_ip_adapter`; later jobs set scales only, and keep its weights in memory for that."""

    def load() -> None:
        loaded(files.unet, files.adapter, files.device, files.dtype)

    def cold() -> None:
        _encode(files)
        load()

    return {COLD: _work(cold), ENCODED: _work(load)}


@torch.no_grad()
def _encode(files: Files) -> None:
    folder = files.folder / "encoders" / "encoder"
    encoder = CLIPVisionModelWithProjection.from_pretrained(str(folder), torch_dtype=torch.float32)
    encoder.to(files.device)(preprocess(picture(0).convert("RGB"), 224).to(files.device))


def _controlnet(files: Files, checkout: Path | None) -> dict[str, Subject]:
    """Loading its adapter and computing the style block's keys and values; its encoder needs the WebUI."""

    def load() -> ControlNet:
        return ControlNet(checkout, files.unet, files.nested())

    kept = load()
    return {
        ENCODED: _work(lambda: _ready(load())),
        KNOWN: _work(lambda: kept.enter(kept.WEIGHTS["style"], (False, True)), kept.leave),
    }


def _ready(theirs: ControlNet) -> None:
    theirs.enter(theirs.WEIGHTS["style"], (False, True))
    theirs.compute(STYLE_BLOCK)
    theirs.leave()


def _work(work: Callable[[], object], leave: Callable[[], object] = lambda: None) -> Subject:
    return Subject(leave=leave, work=work)
