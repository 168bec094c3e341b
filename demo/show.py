"""The demo: every mode on every trial, measured, and a sheet of the paper's experiments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from .experiments import experiments
from .modes import MODES, Mode
from .scores import scores, table
from .setups import Setup
from .sheet import sheet


@dataclass(frozen=True)
class Shown:
    """What a demo came to."""

    table: str  # for the terminal
    numbers: dict[str, Any]
    pictures: tuple[Path, ...]


def show(setup: Setup, out: Path) -> Shown:
    """Draw everything, measure it, and write the sheet."""
    made = {mode.name: _drawn(setup, mode) for mode in MODES}
    told = {name: scores(setup.gauge, setup.trials, pictures) for name, pictures in made.items()}
    path = out / "sheet.png"
    sheet(experiments(setup)).save(path)
    numbers = {name: {measure: vars(one) for measure, one in row.items()} for name, row in told.items()}
    return Shown(table(told), {"references": len(setup.trials), "modes": numbers}, (path,))


def _drawn(setup: Setup, mode: Mode) -> list[list[Image.Image]]:
    return [setup.draw(trial, mode) for trial in tqdm(setup.trials, desc=f"{mode.name:27}", unit="ref")]
