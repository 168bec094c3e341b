"""Makes single controls of a unit from the schema: labels, bounds, choices and tooltips come from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import gradio as gr

from ...units.curves import NAMED, write_curve
from ...units.fields import Choice, Number
from ...units.unit import DEFAULTS, FIELDS, in_effect
from ..arguments import ONE_PICTURE

STEP = 0.05
# By ui-config.json, which takes a choice's label for its value.
NOT_REMEMBERED = ("image", "more_pictures", "method", "lora", "adapter", "preset", "content_method", *ONE_PICTURE)
UPLOAD_ONLY: dict[str, Any] = {"sources": ["upload"]} if "sources" in signature(gr.Image).parameters else {}  # gradio 4


class Controls:
    """The controls of one tab: each is made in the current gradio context and found by its name afterwards."""

    def __init__(self, number: int, elem_id: Callable[[str], str]) -> None:
        self._number, self._elem_id = number, elem_id
        self.made: dict[str, Any] = {}

    def id(self, name: str) -> str:
        """The page's id of one of the tab's elements."""
        return self._elem_id(f"unit{self._number}_{name}")

    def add(self, name: str, component: Any) -> Any:
        """A control that was made elsewhere."""
        component.do_not_save_to_config = self._number > 1 or name in NOT_REMEMBERED
        self.made[name] = component
        return component

    def common(self, name: str) -> dict[str, Any]:
        """Arguments that every component of a field shares."""
        spec = FIELDS[name]
        return {"label": spec.label, "tooltip": spec.help, "elem_id": self.id(name)}

    def slider(self, name: str, **extra: Any) -> Any:
        kind = FIELDS[name].kind
        assert isinstance(kind, Number)
        value = {"value": in_effect(name, DEFAULTS), "minimum": kind.low, "maximum": kind.high, "step": STEP}
        return self.add(name, gr.Slider(**{**self.common(name), **value, **extra}))

    def picture(self, name: str, height: int) -> Any:
        shown = {"type": "pil", "image_mode": None, "height": height, **UPLOAD_ONLY}
        return self.add(name, gr.Image(**self.common(name), **shown))

    def checkbox(self, name: str, **extra: Any) -> Any:
        return self.add(name, gr.Checkbox(**self.common(name), value=DEFAULTS[name], **extra))

    def text(self, name: str, placeholder: str, lines: int = 1) -> Any:
        return self.add(name, gr.Textbox(**self.common(name), lines=lines, value="", placeholder=placeholder))

    def radio(self, name: str, choices: Sequence[tuple[str, str]]) -> Any:
        """`choices`: labels with their values."""
        return self.add(name, gr.Radio(**self.common(name), choices=choices, value=DEFAULTS[name]))

    def dropdown(self, name: str, choices: Sequence[Any], **extra: Any) -> Any:
        return self.add(name, gr.Dropdown(**self.common(name), choices=choices, value=DEFAULTS[name], **extra))

    def choice(self, name: str) -> Any:
        kind = FIELDS[name].kind
        assert isinstance(kind, Choice)
        return self.dropdown(name, list(kind.choices))

    def curve(self, name: str) -> Any:
        value = write_curve(DEFAULTS[name])
        choices = [*NAMED] if value else ["", *NAMED]  # of an empty value gradio 4 makes the first choice
        made = gr.Dropdown(**self.common(name), choices=choices, value=value, allow_custom_value=True)
        return self.add(name, made)
