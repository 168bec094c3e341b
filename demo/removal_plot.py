"""Draws what `python -m demo.removal` measured; needs matplotlib.

python -m demo.removal_plot NUMBERS.json PICTURE.png
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

TITLES = {"pooled": "pooled embedding (base adapters)", "patches": "patch features (plus adapters)"}


def main(numbers: Path, picture: Path) -> None:
    from matplotlib import pyplot

    points: list[dict[str, Any]] = json.loads(numbers.read_text("utf-8"))
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True)
    for axis, (features, title) in zip(axes, TITLES.items()):
        chosen = [point for point in points if point["features"] == features]
        for method, line in groupby(chosen, key=lambda point: point["method"]):
            _draw(axis, method, list(line))
        axis.set(title=title, xlabel="subject still named (leak)", xlim=(0.95, -0.03), ylim=(0.3, 1.04))
        axis.grid(alpha=0.25)
        axis.legend(loc="lower left")
    axes[0].set_ylabel("style still named")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


def _draw(axis: Any, method: str, line: list[dict[str, Any]]) -> None:
    """One method: a curve over its strengths, with the strength written beside 0.5 and 1."""
    x, y = [point["subject"] for point in line], [point["style"] for point in line]
    (drawn,) = axis.plot(x, y, marker="o", markersize=4, label=method)
    for point in line:
        if point["scale"] in (0.5, 1.0):
            at, colour = (point["subject"], point["style"]), drawn.get_color()
            axis.annotate(f"{point['scale']:g}", at, (2, -13), textcoords="offset points", fontsize=8, color=colour)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
