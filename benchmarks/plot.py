"""Draws what `python -m benchmarks --json NUMBERS.json` measured; needs matplotlib.

python -m benchmarks.plot NUMBERS.json PICTURE.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COLOURS = {"ours": "tab:blue", "diffusers": "tab:orange", "ControlNet": "tab:green"}
# Kinds of series by the beginning of their tables' names: what stands behind a column's name, and what the axis says.
KINDS = {
    "arithmetic: ": (", %", "FLOPs above the plain layer's, %"),
    "growth: ": ("", "time against the plain layer"),
}


def main(numbers: Path, picture: Path) -> None:
    from matplotlib import pyplot

    data = json.loads(numbers.read_text("utf-8"))
    series = {kind: [table for table in data["tables"] if table["name"].startswith(kind)] for kind in KINDS}
    series = {kind: tables for kind, tables in series.items() if tables}
    if not series:
        raise SystemExit(f"{numbers} holds no series; measure them with --sections layer-flops,growth.")
    columns = max(map(len, series.values()))
    size = (3.2 * columns, 3.4 * len(series))
    figure, axes = pyplot.subplots(len(series), columns, figsize=size, squeeze=False)
    for row, (kind, tables) in zip(axes, series.items()):
        ending, said = KINDS[kind]
        for axis, table in zip(row, tables):
            _draw(axis, table["rows"], ending)
            axis.set_title(table["name"].removeprefix(kind), fontsize=10)
        row[0].set_ylabel(said)
        row[0].legend()
    figure.suptitle(data["machine"], fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _draw(axis: Any, rows: dict[str, Any], ending: str) -> None:
    for who, colour in COLOURS.items():
        measured = [(label, cells[who + ending]) for label, cells in rows.items() if who + ending in cells]
        if measured:
            _line(axis, measured, color=colour, label=who)
    if ending:  # a share of something, not a ratio about 1
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.25)
    axis.tick_params(axis="x", labelsize=8)


def _line(axis: Any, measured: list[tuple[str, Any]], **style: Any) -> None:
    """Numbers as they are, medians with a bar from quartile to quartile."""
    labels, values = zip(*measured)
    if not isinstance(values[0], dict):
        axis.plot(labels, values, marker="o", markersize=4, **style)
        return
    medians = [spread["median"] for spread in values]
    below = [spread["median"] - spread["low"] for spread in values]
    above = [spread["high"] - spread["median"] for spread in values]
    axis.errorbar(labels, medians, (below, above), marker="o", markersize=4, capsize=3, **style)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
