"""Under what a WebUI is tried: its flags, its settings, its extensions and the name of our folder among theirs.

The WebUI reads all of these once, when it starts. So another condition needs another process, and a process is told its
condition by an environment variable.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from live_kind import kind

VARIABLE = "INSTANTSTYLE_LIVE_CONDITION"
FLOAT32 = ("--no-half", "--precision", "full")
# From 1 to the next number. TF32 are the numbers that a GPU multiplies in when it is given float32.
STEPS = {"float32": 2**-23, "tf32": 2**-10, "float16": 2**-10, "bfloat16": 2**-7}


@dataclass(frozen=True)
class Condition:
    """What a WebUI is started with."""

    flags: tuple[str, ...] = ()
    precision: tuple[str, ...] = FLOAT32
    options: dict[str, Any] = field(default_factory=dict)  # of its config.json
    extensions: tuple[str, ...] = ("*controlnet*",)  # patterns of folder names; the tester's WebUI need not have them
    own_name: str = "sd-webui-instantstyle"  # extensions are loaded in the order of their names
    device: str = "cpu"  # or "cuda"
    arithmetic: str = "float32"  # the coarsest it computes with, of STEPS
    optimization: str | None = None  # of attention, which must be at work
    models: str | None = None  # a models folder that is there already

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the WebUI's command line."""
        if kind().is_fork:
            return (*kind().cpu, *self.flags)
        return (*(("--use-cpu", "all") if self.device == "cpu" else ()), *self.precision, *self.flags)

    def as_variable(self, models: Path) -> dict[str, str]:
        """The environment variable that tells another process of this condition, and that it may use these models."""
        return {VARIABLE: json.dumps(asdict(replace(self, models=str(models))))}


USUAL = Condition()


def from_environment() -> Condition | None:
    """The condition that this process is told to try, or None."""
    if VARIABLE not in os.environ:
        return None
    told = json.loads(os.environ[VARIABLE])
    return Condition(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})
