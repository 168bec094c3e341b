"""Files that an operating system or a program has left in a folder, and that nobody means when they name it."""

from __future__ import annotations

from pathlib import PurePath

LEFT_BY_ARCHIVERS = "__MACOSX"


def is_hidden(path: PurePath) -> bool:
    """Whether a path inside a folder is, or lies in, something hidden, like `._a.png` or `__MACOSX/a.png`."""
    return any(part.startswith(".") or part == LEFT_BY_ARCHIVERS for part in path.parts)
