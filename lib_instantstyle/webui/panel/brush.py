"""A brush for regions: paint over a picture, and what is painted becomes the region. Gradio 3 has one that is light."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import gradio as gr
from PIL import Image

from .visibility import QUIET

LABEL = "Paint a region: drop a picture, such as an earlier result, and brush over it"
HAS_BRUSH = "tool" in signature(gr.Image).parameters


def build_brush(elem_id: Callable[[str], str], region: Any) -> Any:
    """The brush and its button, in the current context; `region` is the control that takes what was painted."""
    with gr.Column(visible=HAS_BRUSH) as shown:
        if HAS_BRUSH:
            sketch = {"type": "pil", "tool": "sketch", "image_mode": "RGB", "brush_radius": 40, "height": 320}
            painted = gr.Image(label=LABEL, elem_id=elem_id("brush"), **sketch)
            use = gr.Button("Use what is painted", size="sm", elem_id=elem_id("brush_use"))
            use.click(fn=_as_update, inputs=[painted], outputs=[region], **QUIET)
    return shown


def _as_update(painted: dict[str, Image.Image] | None) -> Any:
    return gr.update(value=painted_region(painted))


def painted_region(painted: dict[str, Image.Image] | None) -> Image.Image | None:
    """White where a brush went, black elsewhere; None where it went nowhere. `painted`: gradio's {image, mask}."""
    if painted is None:
        return None
    mask = painted["mask"].convert("L")
    return mask.convert("RGB") if mask.getbbox() else None
