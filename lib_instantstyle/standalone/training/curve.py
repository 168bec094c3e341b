"""What is heard of a training while it runs: a bar, a CSV of the loss, TensorBoard where it is installed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLUMNS = ("step", "loss", "rate", "group", "seconds")
RECENT = 100  # steps whose mean loss is told

Bar = Callable[[str, int], Callable[[int], object]]  # (what, how many) → call it with how many more are done


class Curve:
    """loss.csv, one line a step; what an earlier run wrote beyond the step it is resumed from is cut off."""

    def __init__(self, path: Path, start: int) -> None:
        kept = _lines_before(path, start)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join([",".join(COLUMNS) + "\n", *kept]), "utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._recent = deque((float(line.split(",")[1]) for line in kept), RECENT)

    def add(self, step: int, loss: float, rate: float, group: str, seconds: float) -> None:
        """`step` counts from 1."""
        self._file.write(f"{step},{loss!r},{rate!r},{group},{seconds:.3f}\n")
        self._file.flush()
        self._recent.append(loss)

    @property
    def recent(self) -> float | None:
        """The mean loss of the last steps."""
        return sum(self._recent) / len(self._recent) if self._recent else None


def _lines_before(path: Path, start: int) -> list[str]:
    if not start or not path.is_file():
        return []
    lines = path.read_text("utf-8").splitlines(keepends=True)[1:]
    whole = [line for line in lines if line.endswith("\n") and line.count(",") == len(COLUMNS) - 1]
    return [line for line in whole if int(line.split(",")[0]) <= start]


def bar(what: str, count: int, start: int = 0, quiet: bool = False) -> Any:
    """A progress bar on stderr."""
    from tqdm import tqdm

    return tqdm(total=count, initial=start, desc=what, disable=quiet, file=sys.stderr)


def bars(quiet: bool) -> Bar:
    """Bars one after another, each closed when it is full; none for nothing to do."""

    def started(what: str, count: int) -> Callable[[int], object]:
        shown = bar(what, count, quiet=quiet or not count)

        def done(more: int) -> None:
            shown.update(more)
            if shown.n >= count:
                shown.close()

        return done

    return started
