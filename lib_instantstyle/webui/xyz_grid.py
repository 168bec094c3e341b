"""Axes for the WebUI's X/Y/Z plot: each sets one field of the first reference that is in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from modules import scripts

from ..units.errors import UnitError
from ..units.fields import Choice, Number
from ..units.unit import FIELDS, StyleUnit, checked
from .arguments import requested_units

TITLE = "InstantStyle"  # of the always-on script
PREFIX = f"[{TITLE}] "
AXES = (
    "preset",
    "weight",
    "layout_weight",
    "content_prompt",
    "content_scale",
    "content_method",
    "start",
    "end",
    "push_weight",
    "curve",
    "layout_curve",
    "passes",
    "fusion",
    "kv_scaling",
    "crop",
    "combine",
    "image_weights",
    "method",
    "lora",
    "negative_noise",
    "palette",
    "attention_guidance",
)
CELL_VALUES = "_instantstyle_cell"  # on the cell's copy of the job: field → value


def add_axes() -> None:
    """Put our axes into the X/Y/Z script, once; called before the WebUI builds its pages."""
    for script in scripts.scripts_data:
        if script.script_class.__module__ in ("xyz_grid.py", "scripts.xyz_grid"):
            options = script.module.axis_options
            if not any(option.label.startswith(PREFIX) for option in options):
                options.extend(_axis(script.module.AxisOption, name) for name in AXES)


def _axis(axis_option: Any, name: str) -> Any:
    kind = FIELDS[name].kind
    choices = {"choices": lambda: list(kind.choices)} if isinstance(kind, Choice) else {}
    typed = float if isinstance(kind, Number) else str
    return axis_option(f"{PREFIX}{FIELDS[name].label}", typed, _set(name), confirm=_confirm(name), **choices)


def _confirm(name: str) -> Callable[[Any, Any], None]:
    """Before the first cell: the WebUI leaves a cell blank that raises, and says so in its log only."""

    def confirm(p: Any, values: Sequence[Any]) -> None:
        for value in values:
            checked(name, value)
        script = next(one for one in p.scripts.alwayson_scripts if one.title() == TITLE)
        _first_in_use(requested_units(p.script_args[script.args_from : script.args_to]))

    return confirm


def _first_in_use(units: Sequence[StyleUnit]) -> int:
    for number, unit in enumerate(units):
        if unit.enabled:
            return number
    raise UnitError("An InstantStyle axis needs an active reference. Open the InstantStyle panel and add one.")


def _set(name: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, values: Any) -> None:
        setattr(p, CELL_VALUES, {**getattr(p, CELL_VALUES, {}), name: value})  # the cell before shares the old dict

    return apply


def in_cell(p: Any, units: Sequence[StyleUnit]) -> tuple[StyleUnit, ...]:
    """The units with a grid cell's values in the first enabled one; unchanged outside a grid. Raises UnitError."""
    values = {name: checked(name, value) for name, value in getattr(p, CELL_VALUES, {}).items()}
    if not values:
        return tuple(units)
    first = _first_in_use(units)
    return (*units[:first], replace(units[first], **values), *units[first + 1 :])
