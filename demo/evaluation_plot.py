"""Draws what `python -m demo.evaluation` measured; needs matplotlib.

python -m demo.evaluation_plot NUMBERS.json PICTURE.png
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

TITLES = {"weight": "weights 0.25 to 1.5", "removal": "original, content removed: strengths 0.25 to 1.5"}


def main(numbers: Path, picture: Path) -> None:
    from matplotlib import pyplot

    told: list[dict[str, Any]] = json.loads(numbers.read_text("utf-8"))
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.6))
    for axis, (sweep, title) in zip(axes, TITLES.items()):
        chosen = [one for one in told if one["sweep"] == sweep]
        for series, line in groupby(chosen, key=lambda one: one["series"]):
            _draw(axis, series, list(line))
        axis.set(title=title, xlabel="leak: the reference's subject", ylim=(-0.03, 1.03))
        axis.set_xlim(-0.03, 0.1 + max((one["leak"]["value"] for one in chosen), default=0.9))
        axis.set_ylabel("style: its palette and texture, half each")
        axis.grid(alpha=0.25)
        axis.legend(loc="lower right", fontsize=8)
    _bars(axes[2], [one for one in told if one["sweep"] == "block"])
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _draw(axis: Any, series: str, line: list[dict[str, Any]]) -> None:
    """One series: a curve over its numbers, each written beside its point."""
    x, y = [one["leak"]["value"] for one in line], [one["style"]["value"] for one in line]
    (drawn,) = axis.plot(x, y, marker="o", markersize=4, label=series)
    for one, at in zip(line, zip(x, y)):
        axis.annotate(one["at"], at, (3, 4), textcoords="offset points", fontsize=7, color=drawn.get_color())


def _bars(axis: Any, blocks: list[dict[str, Any]]) -> None:
    """What each block alone brings over."""
    names = [one["at"].replace("attentions", "att") for one in blocks]
    parts = ("palette", "texture") if "palette" in blocks[0] else ("style",)  # of the world, of models of one's own
    height = 0.76 / (len(parts) + 1)
    for place, measure in enumerate((*parts, "leak")):
        rows = [number + height * (place - len(parts) / 2) for number in range(len(blocks))]
        axis.barh(rows, [one[measure]["value"] for one in blocks], height=height, label=measure)
    axis.set_yticks(range(len(blocks)), names, fontsize=7)
    axis.set(title="one block alone, weight 1", xlim=(0, 1))
    axis.invert_yaxis()
    axis.legend()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
