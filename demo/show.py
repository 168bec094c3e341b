"""The demo: every mode on every trial, measured, and a sheet of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from lib_instantstyle.hosts.standalone import StandaloneHost

from .modes import Mode, Roles
from .scores import Gauge, scores, table
from .sheet import Row, sheet
from .trials import Sampling, Trial, pictures_of

ROWS = 6  # of the sheet


@dataclass(frozen=True)
class Shown:
    """What a demo came to."""

    table: str  # for the terminal
    numbers: dict[str, Any]
    pictures: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class Setup:
    """What a demo is drawn with."""

    host: StandaloneHost
    gauge: Gauge
    roles: Roles
    sampling: Sampling


def show(setup: Setup, trials: Sequence[Trial], out: Path) -> Shown:
    """Draw everything, measure it, and write the sheet."""
    made = {mode.name: _drawn(setup, trials, mode) for mode in setup.roles.modes}
    told = {name: scores(setup.gauge, trials, pictures) for name, pictures in made.items()}
    path = out / "sheet.png"
    sheet(list(made), sheet_rows(trials, made)).save(path)
    numbers = {name: {measure: vars(one) for measure, one in row.items()} for name, row in told.items()}
    return Shown(table(told), {"references": len(trials), "modes": numbers}, (path,))


def _drawn(setup: Setup, trials: Sequence[Trial], mode: Mode) -> list[list[Image.Image]]:
    shown = tqdm(trials, desc=f"{mode.name:27}", unit="ref")
    return [pictures_of(setup.host, trial, mode, setup.sampling) for trial in shown]


def sheet_rows(trials: Sequence[Trial], made: Mapping[str, list[list[Image.Image]]]) -> list[Row]:
    """One prompt of each of the first references."""
    return [
        Row(trial.prompts[0], trial.reference, [pictures[number][0] for pictures in made.values()])
        for number, trial in enumerate(trials[:ROWS])
    ]
