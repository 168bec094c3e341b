"""What is shown with what: controls that mean nothing with a method, a preset, or with nothing to remove, are hidden.

Whoever hides it asks twice: when a control changes, and when the page is made, for which ui-config.json may have filled
controls in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from ...units.methods import LORA, METHODS
from ...units.routing import CUSTOM, PRESETS

QUIET = {"queue": False, "show_progress": False}
# Controls that hide with a method, each with the field that it must have.
GOVERNED = {
    name: name
    for name in (
        "image",
        "crop",
        "combine",
        "image_weights",
        "mask",
        "image_mask",
        "lora",
        "leak_guard",
        "content_prompt",
        "content_image",
        "negative_image",
        "negative_noise",
        "content_renorm",
        "fusion",
        "kv_scaling",
        "attention_guidance",
        "adapter",
        "preset",
        "curve",
        "layout_curve",
        "palette",
    )
} | {"more_pictures": "image", "brush": "mask"}


def at_first(component: Any, told: Callable[[], dict[str, Any]]) -> None:
    """Have a component's properties follow what the controls hold when the page is made."""
    as_built = component.get_config
    component.get_config = lambda: {**as_built(), **told()}


def hide_with_method(method: Any, parts: Mapping[str, Any]) -> None:
    """`parts`: the components by the names of GOVERNED."""
    method.change(fn=governed_by, inputs=[method], outputs=[parts[name] for name in GOVERNED], **QUIET)


def governed_by(method: str) -> list[Any]:
    """Which of GOVERNED a method has."""
    return [_governed(name, field not in METHODS[method].lacks) for name, field in GOVERNED.items()]


def _governed(name: str, shown: bool) -> Any:
    """A LoRA's name goes when it is hidden: its tab is to carry no dot."""
    return gr.update(visible=False, value="") if name == LORA and not shown else gr.update(visible=shown)


def show_with_preset(preset: Any, layout: Any, push: Any, custom: Any) -> None:
    """Layout weight, push weight and custom blocks come with the presets that have them."""

    def shown(chosen: str) -> Sequence[Any]:
        told = PRESETS[chosen]
        return [gr.update(visible=one) for one in (bool(told.layout_weighted), told.pushes, chosen == CUSTOM)]

    preset.change(fn=shown, inputs=[preset], outputs=[layout, push, custom], **QUIET)


def show_with_content(removal: Any, made: Mapping[str, Any]) -> None:
    """Have `removal`, which holds strength and method, appear when there is something to remove."""
    prompt, picture, has_picture = made["content_prompt"], made["content_image"], gr.State(False)

    def shown(prompt: str, has_picture: bool) -> Any:
        return gr.update(visible=bool(prompt.strip()) or has_picture)

    def seen(picture: Any, prompt: str) -> tuple[Any, bool]:
        return shown(prompt, picture is not None), picture is not None

    prompt.change(fn=shown, inputs=[prompt, has_picture], outputs=[removal], **QUIET)
    picture.change(fn=seen, inputs=[picture, prompt], outputs=[removal, has_picture], **QUIET)
    at_first(removal, lambda: {"visible": bool(prompt.value and prompt.value.strip())})
