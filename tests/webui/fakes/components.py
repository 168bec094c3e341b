"""modules/ui_components.py, and what gradio_extensons.py changes in gradio itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.blocks import Block

BASE = getattr(gr.components, "IOComponent", gr.components.Component)  # gradio 4 has the latter only


@contextmanager
def tooltips() -> Iterator[None]:
    """Every component takes `tooltip`, and its config hands it to the page."""
    init, config = BASE.__init__, Block.get_config

    def with_tooltip(self: Any, *args: Any, **kwargs: Any) -> None:
        self.webui_tooltip = kwargs.pop("tooltip", None)
        init(self, *args, **kwargs)

    def with_it_told(self: Any, *args: Any) -> Any:
        tooltip = getattr(self, "webui_tooltip", None)
        return {**config(self, *args), **({"webui_tooltip": tooltip} if tooltip else {})}

    BASE.__init__, Block.get_config = with_tooltip, with_it_told
    try:
        yield
    finally:
        BASE.__init__, Block.get_config = init, config


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
