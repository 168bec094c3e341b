"""What commands say: results on stdout, as text or JSON; complaints on stderr; files written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Report:
    """What a command has to say."""

    text: str  # for people
    data: dict[str, Any]  # the same for machines
    fine: bool = True  # whether everything that was asked for is done


def answer(said: str | dict[str, Any]) -> None:
    """Write a result to stdout."""
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False, indent=1)
    sys.stdout.write(f"{text}\n" if text else "")
    sys.stdout.flush()


def complain(message: str) -> None:
    """Write a message to stderr."""
    sys.stderr.write(f"InstantStyle: {message}\n")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path` and give it its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    write(partial)
    os.replace(partial, path)
