"""Folded groups of controls: the header says in a line what is set inside, and a button sets all of it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gradio as gr

from ...units.curves import write_curve
from ...units.methods import METHODS
from ...units.unit import DEFAULTS, in_effect
from .pasting import UPLOADED
from .visibility import QUIET, at_first

Told = dict[str, str]  # control → what a header says of it
PASSES = {"first": "first pass only", "hires": "hires pass only"}

# What a header says of a control that is not as it was, by the control's value; of others the value itself.
SAID: Mapping[str, Callable[[Any], str]] = {
    UPLOADED: lambda files: f"{len(files)} more picture{'s' * (len(files) > 1)}",
    "method": lambda method: METHODS[method].label,
    "image_weights": lambda weights: f"weights {weights}",
    "leak_guard": lambda _: "guarded",
    "palette": lambda share: f"palette {share:g}",
    "image_mask": lambda _: "a part counts",
    "content_image": lambda _: "a picture to remove",
    "negative_image": lambda _: "a picture to avoid",
    "negative_noise": lambda share: f"noise {share:g}",
    "content_renorm": lambda _: "original strength kept",
    "mask": lambda _: "region",
    "start": lambda share: f"from {share:g}",
    "end": lambda share: f"to {share:g}",
    "layout_curve": lambda curve: f"layout {curve}",
    "passes": lambda passes: PASSES.get(passes, passes),
    "kv_scaling": lambda scaling: f"weight acts on {scaling}",
    "attention_guidance": lambda scale: f"attention guided {scale:g}",
}


class Folded:
    """One group. Controls are built inside `open`, and wired when all of them are there."""

    def __init__(self, title: str, elem_id: str, names: tuple[str, ...]) -> None:
        self._title, self._elem_id, self._names = title, elem_id, names

    @contextmanager
    def open(self) -> Iterator[None]:
        """Where the controls are built; the button that sets them back comes last."""
        with gr.Accordion(self._title, open=False, elem_id=self._elem_id) as self._accordion:
            yield
            self._reset = gr.Button("Reset", size="sm", elem_id=f"{self._elem_id}_reset")

    def wire(self, made: Mapping[str, Any]) -> None:
        """`made`: the tab's controls by name. Of a change only the control's own value is sent, not all pictures."""
        told, at_start = gr.State({}), lambda: {name: said(name, made[name].value) for name in self._names}
        at_first(self._accordion, lambda: {"label": self._header(at_start())})
        for name in self._names:
            made[name].change(
                fn=self._follow(name, at_start), inputs=[made[name], told], outputs=[self._accordion, told], **QUIET
            )
        blanks = [blank(name) for name in self._names]
        self._reset.click(
            fn=lambda: [gr.update(value=value) for value in blanks],
            outputs=[made[name] for name in self._names],
            **QUIET,
        )

    def _follow(self, name: str, at_start: Callable[[], Told]) -> Callable[[Any, Told], tuple[Any, Told]]:
        def follow(value: Any, told: Told) -> tuple[Any, Told]:
            now = {**(told or at_start()), name: said(name, value)}
            return gr.update(label=self._header(now)), now

        return follow

    def _header(self, told: Told) -> str:
        return header(self._title, [told[name] for name in self._names])


def blank(name: str) -> Any:
    """What a control holds in a panel that nobody has touched."""
    if name == UPLOADED or isinstance(DEFAULTS.get(name), tuple):
        return None
    if name in ("curve", "layout_curve"):
        return write_curve(DEFAULTS[name])
    return "" if name == "image_weights" else in_effect(name, DEFAULTS)


def said(name: str, value: Any) -> str:
    """What a header says of a control; "" when it is as it was."""
    if value == blank(name) or value in (None, "", []):
        return ""
    return SAID.get(name, str)(value)


def header(title: str, told: list[str]) -> str:
    """The title, and after it what is set inside."""
    parts = [one for one in told if one]
    return f"{title}: {' · '.join(parts)}" if parts else title
