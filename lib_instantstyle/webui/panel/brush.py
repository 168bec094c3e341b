"""A brush for regions: paint over a picture, and what is painted becomes the region."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import gradio as gr
from PIL import Image, ImageChops

from .visibility import QUIET

LABEL = "Paint a region: drop a picture, such as an earlier result, and brush over it"
IS_GRADIO_3 = "tool" in signature(gr.Image).parameters


def build_brush(elem_id: Callable[[str], str], region: Any) -> Any:
    """The brush and its button, in the current context; `region` is the control that takes what was painted."""
    with gr.Column() as shown:
        painted = _canvas(label=LABEL, elem_id=elem_id("brush"), height=320)
        use = gr.Button("Use what is painted", size="sm", elem_id=elem_id("brush_use"))
    use.click(fn=lambda value: gr.update(value=painted_region(value)), inputs=[painted], outputs=[region], **QUIET)
    return shown


def _canvas(**common: Any) -> Any:
    if IS_GRADIO_3:
        return gr.Image(**common, type="pil", tool="sketch", image_mode="RGB", brush_radius=40)
    return gr.ImageMask(**common, type="pil", sources=("upload",), transforms=())


def painted_region(value: Any) -> Image.Image | None:
    """White where a brush went, black elsewhere; None where it went nowhere.

    `value` is gradio 3's {image, mask}, or gradio 4's {background, layers, composite}.
    """
    found = None
    for layer in _layers(value or {}):
        found = layer if found is None else ImageChops.lighter(found, layer)
    return found.convert("RGB") if found is not None and found.getbbox() else None


def _layers(value: dict[str, Any]) -> Iterator[Image.Image]:
    """Each layer's opacity, as greys."""
    if value.get("mask") is not None:
        yield value["mask"].convert("L")
    for layer in value.get("layers") or ():
        yield layer.convert("RGBA").getchannel("A")
