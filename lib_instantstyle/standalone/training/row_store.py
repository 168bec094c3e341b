"""Arrays on disk that are filled row by row, by several processes at once; filling can be stopped and resumed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MISSING, THERE, UNREADABLE = 0, 1, 2
STATE = "state"

Shapes = Mapping[str, tuple[int, ...]]  # of one row
Encode = Callable[[Sequence[int]], Mapping[int, Mapping[str, Tensor]]]  # rows asked for → those that could be encoded


class RowStore:
    """Named arrays with a row for each picture or caption, memory-mapped."""

    def __init__(self, folder: Path, count: int, shapes: Shapes, dtype: type[np.floating]) -> None:
        """Opens the arrays in the folder, or makes them empty; whoever comes second finds those of the first."""
        if not folder.is_dir():
            _create(folder, count, shapes, dtype)
        self.names = tuple(shapes)
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in (*self.names, STATE)}

    @property
    def state(self) -> np.ndarray:
        """(rows,) MISSING, THERE or UNREADABLE."""
        return self._arrays[STATE]

    def missing(self, share: int = 0, of: int = 1) -> list[int]:
        """Rows that are to be filled; the `share`-th of `of` parts of them."""
        return [int(row) for row in np.flatnonzero(self.state == MISSING) if row % of == share]

    def fill(self, rows: Sequence[int], encode: Encode, at_once: int) -> Iterator[int]:
        """Fill these rows, some at once; yields how many have been done."""
        for start in range(0, len(rows), at_once):
            wanted = rows[start : start + at_once]
            made = encode(wanted)
            for row in wanted:
                for name, tensor in made.get(row, {}).items():
                    self._arrays[name][row] = tensor.numpy()
            for name in self.names:
                self._arrays[name].flush()
            for row in wanted:  # only now: a row counts when all of it is on disk, also after a power cut
                self.state[row] = THERE if row in made else UNREADABLE
            yield len(wanted)

    def read(self, name: str, rows: Sequence[int]) -> Tensor:
        """(n, *shape) float32"""
        return torch.from_numpy(np.ascontiguousarray(self._arrays[name][list(rows)], dtype=np.float32))


def _create(folder: Path, count: int, shapes: Shapes, dtype: type[np.floating]) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, shape in shapes.items():
        np.lib.format.open_memmap(partial / f"{name}.npy", "w+", dtype, (count, *shape))
    np.lib.format.open_memmap(partial / f"{STATE}.npy", "w+", np.uint8, (count,))
    with suppress(OSError):  # another process was first
        partial.rename(folder)
    shutil.rmtree(partial, ignore_errors=True)
