"""A training curve: the running mean of the loss, as a CSV file and on the terminal."""

from __future__ import annotations

import time
from pathlib import Path


class Curve:
    def __init__(self, path: Path, every: int = 50) -> None:
        self._path, self._every = path, every
        self._sum, self._count, self._since = 0.0, 0, time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("step,loss,seconds_per_step\n", encoding="utf-8")

    def add(self, step: int, loss: float) -> None:
        self._sum, self._count = self._sum + loss, self._count + 1
        if (step + 1) % self._every == 0:
            self._write(step + 1)

    def _write(self, step: int) -> None:
        now = time.monotonic()
        line = f"{step},{self._sum / self._count:.5f},{(now - self._since) / self._count:.3f}"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(f"{self._path.stem}: step,loss,s = {line}", flush=True)
        self._sum, self._count, self._since = 0.0, 0, now
