"""What commands say: results on stdout, as text or JSON; complaints on stderr."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
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
