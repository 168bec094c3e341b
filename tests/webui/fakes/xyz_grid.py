"""scripts/xyz_grid.py: a selectable script whose axes other extensions add to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .scripts import Script, ScriptClassData


@dataclass
class AxisOption:
    label: str
    type: Callable[[Any], Any]
    apply: Callable[[Any, Any, Any], None]
    confirm: Callable[[Any, Any], None] | None = None
    choices: Callable[[], list[str]] | None = None


class XyzGrid(Script):
    def title(self) -> str:
        return "X/Y/Z plot"


XyzGrid.__module__ = "xyz_grid.py"  # as script_loading.py names it


def loaded() -> ScriptClassData:
    """The script as executing its file anew gives it: with the WebUI's own axes."""
    module = ModuleType("xyz_grid.py")
    vars(module).update(AxisOption=AxisOption, axis_options=[AxisOption("Steps", int, lambda p, value, values: None)])
    return ScriptClassData(XyzGrid, "xyz_grid.py", module)
