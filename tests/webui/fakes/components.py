"""modules/ui_components.py, and what gradio_extensons.py (in the forks gradio_extensions.py) changes in gradio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.routes import App

# gradio 4 has no common __init__ that takes what it does not know, so each class is taught
KINDS = (
    [gr.components.IOComponent]
    if hasattr(gr.components, "IOComponent")
    else [kind for name in gr.components.__all__ if hasattr(kind := getattr(gr, name), "EVENTS")]
)


@contextmanager
def tooltips() -> Iterator[None]:
    """Every component takes `tooltip`, and its config hands it to the page."""
    config, inits = Block.get_config, [(kind, kind.__init__) for kind in KINDS]

    def with_it_told(self: Any, *args: Any) -> Any:
        tooltip = getattr(self, "webui_tooltip", None)
        return {**config(self, *args), **({"webui_tooltip": tooltip} if tooltip else {})}

    Block.get_config = with_it_told
    for kind, init in inits:
        kind.__init__ = _with_tooltip(init)
    try:
        yield
    finally:
        Block.get_config = config
        for kind, init in inits:
            kind.__init__ = init


@contextmanager
def not_served() -> Iterator[None]:
    """Pages are built without gradio's own HTTP server, which takes a third of the time and answers nobody here."""
    create = App.create_app
    App.create_app = staticmethod(lambda *_, **__: None)
    try:
        yield
    finally:
        App.create_app = create


def _with_tooltip(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def initialised(self: Any, *args: Any, tooltip: str | None = None, **kwargs: Any) -> None:
        self.webui_tooltip = tooltip
        init(self, *args, **kwargs)

    return initialised


class ToolButton(gr.Button):
    """Small button with a single emoji."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, elem_classes=["tool"], **kwargs)

    def get_block_name(self) -> str:
        return "button"


class InputAccordion(gr.Checkbox):
    """A hidden checkbox that follows an accordion."""

    def __init__(self, value: bool, *, label: str, elem_id: str) -> None:
        super().__init__(value, label=label, elem_id=f"{elem_id}-checkbox", visible=False)
        self.accordion = gr.Accordion(label=label, elem_id=elem_id, open=value)

    def __enter__(self) -> InputAccordion:
        self.accordion.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.accordion.__exit__(*raised)

    def get_block_name(self) -> str:
        return "checkbox"
