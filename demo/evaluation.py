"""The paper's claims, measured: `python -m demo.evaluation`, on the world or with --model … on models of yours.

Writes evaluation.json, evaluation.md with the tables, and for each sweep a sheet to read side by side.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from lib_instantstyle.units.errors import InstantStyleError

from .modes import Mode
from .scores import Mean, mean, scores
from .setups import Setup, add_setup_options, open_setup
from .sheet import Row, Section, sheet
from .sweeps import SWEEPS, Point, points
from .trials import Trial


@dataclass(frozen=True)
class Measured:
    """A point with what was measured there, and its first picture."""

    point: Point
    means: dict[str, Mean]
    picture: Image.Image

    def as_json(self) -> dict[str, object]:
        where = {"sweep": self.point.sweep, "series": self.point.series, "at": self.point.at}
        return {**where, **{name: vars(one) for name, one in self.means.items()}}


def evaluate(setup: Setup, chosen: Iterable[Point]) -> list[Measured]:
    """Draw and measure every point; time is relative to the first one's, reference by reference."""
    measured: list[Measured] = []
    first: list[float] = []
    for point in tqdm(list(chosen), unit="point"):
        made, seconds = zip(*(_timed(setup, trial, point.mode) for trial in setup.trials))
        first = first or list(seconds)
        told = scores(setup.gauge, setup.trials, made)
        told["time"] = mean([[one / plain] for one, plain in zip(seconds, first)])
        measured.append(Measured(point, told, made[0][0]))
    return measured


def _timed(setup: Setup, trial: Trial, mode: Mode) -> tuple[list[Image.Image], float]:
    """A trial's pictures, and how long they took; what is prepared once does not count."""
    setup.prepare(trial, mode)
    clock = time.process_time if setup.host.pipe.device.type == "cpu" else time.perf_counter
    started = clock()
    return setup.draw(trial, mode), clock() - started


def write(measured: Sequence[Measured], reference: Trial, out: Path) -> list[Path]:
    """Write numbers, tables and sheets."""
    paths = [out / "evaluation.json", out / "evaluation.md"]
    paths[0].write_text(json.dumps([one.as_json() for one in measured], indent=1, ensure_ascii=False), "utf-8")
    paths[1].write_text("\n\n".join(_table(name, list(part)) for name, part in _by_sweep(measured)) + "\n", "utf-8")
    for name, part in _by_sweep(measured):
        paths.append(out / f"{name}.png")
        _sheet(list(part), reference).save(paths[-1])
    return paths


def _by_sweep(measured: Sequence[Measured]) -> Iterable[tuple[str, Iterable[Measured]]]:
    return groupby(measured, key=lambda one: one.point.sweep)


def _table(sweep: str, measured: Sequence[Measured]) -> str:
    names = list(measured[0].means)
    head = ["series", sweep, *names]
    rows = [[one.point.series, one.point.at, *(str(one.means[name]) for name in names)] for one in measured]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _sheet(measured: Sequence[Measured], trial: Trial) -> Image.Image:
    """A row for each series, a column for each point along it."""
    series = [list(part) for _, part in groupby(measured, key=lambda one: one.point.series)]
    rows = [Row(part[0].point.series, trial.reference, [one.picture for one in part]) for part in series]
    return sheet([Section("", [one.point.at or one.point.series for one in series[0]], rows)])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m demo.evaluation", description=__doc__.split("\n\n")[0])
    made.add_argument("--out", type=Path, default=Path("demo/out/evaluation"), metavar="DIR")
    made.add_argument("--sweeps", nargs="+", choices=SWEEPS, default=SWEEPS, help="which of them (default: all)")
    add_setup_options(made, references=8, prompts=5)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        setup = open_setup(options)
        chosen = {"none", *options.sweeps}  # times are relative to the prompt alone
        measured = evaluate(setup, [point for point in points() if point.sweep in chosen])
    except InstantStyleError as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 2
    for path in write(measured, setup.trials[0], options.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
