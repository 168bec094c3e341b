"""Files that are written whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object], *, alone: bool = True) -> None:
    """Let `write` fill a file beside `path` and give it its name when it is complete.

    `alone`: nobody else writes it at the same time, so what a killed process left half done can be written over. Raises
    what `write` raises, or OSError; then nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part" if alone else f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        write(partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
