"""The drawn pictures as arrays: made once from a seed by all processors, then read from a folder."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from .drawing import SIDE, draw
from .scenes import Scene, random_scene


def scenes(count: int, seed: int, *, held_out: bool = False) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, held_out=held_out) for _ in range(count)]


def pictures(folder: Path, drawn: list[Scene], name: str) -> np.ndarray:
    """(n, SIDE, SIDE, 3) uint8 pictures of the scenes, memory-mapped from `folder`, drawn first where missing."""
    path = folder / f"{name}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            made = list(pool.map(_pixels, drawn, chunksize=64))
        np.save(path, np.stack(made))
    found = np.load(path, mmap_mode="r")
    if found.shape != (len(drawn), SIDE, SIDE, 3):
        raise ValueError(f"{path} holds {found.shape}, not {len(drawn)} pictures; delete it to draw them again.")
    return found


def _pixels(scene: Scene) -> np.ndarray:
    return np.asarray(draw(scene))
