"""Draws what `python -m benchmarks --json NUMBERS.json` measured; needs matplotlib.

python -m benchmarks.plot NUMBERS.json PICTURE.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PREFIX = "growth: "
COLOURS = {"ours": "tab:blue", "diffusers": "tab:orange", "ControlNet": "tab:green"}


def main(numbers: Path, picture: Path) -> None:
    from matplotlib import pyplot

    data = json.loads(numbers.read_text("utf-8"))
    series = [table for table in data["tables"] if table["name"].startswith(PREFIX)]
    if not series:
        raise SystemExit(f"{numbers} holds no growth; measure it with --sections growth.")
    figure, axes = pyplot.subplots(1, len(series), figsize=(3.4 * len(series), 3.6), squeeze=False)
    for axis, table in zip(axes[0], series):
        for who, colour in COLOURS.items():
            _draw(axis, table["rows"], who, colour)
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.set(title=table["name"].removeprefix(PREFIX))
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("time of a styled layer against the plain one")
    axes[0][0].legend()
    figure.suptitle(data["machine"], fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _draw(axis: Any, rows: dict[str, Any], who: str, colour: str) -> None:
    """Medians, with a bar from quartile to quartile."""
    measured = [(label, cells[who]) for label, cells in rows.items() if who in cells]
    if not measured:
        return
    labels, spreads = zip(*measured)
    medians = [spread["median"] for spread in spreads]
    below = [spread["median"] - spread["low"] for spread in spreads]
    above = [spread["high"] - spread["median"] for spread in spreads]
    axis.errorbar(labels, medians, (below, above), marker="o", markersize=4, capsize=3, color=colour, label=who)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
