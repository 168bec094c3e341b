"""The InstantStyle page in Settings."""

from __future__ import annotations

import gradio as gr

from modules import shared

from .hosts.folders import DEFAULT_UNITS

SECTION = ("instantstyle", "InstantStyle")
MAX_UNITS = 10


def add_settings() -> None:
    """Register our options; called by the WebUI when it builds the settings page."""
    for key, option in _options().items():
        shared.opts.add_option(key, option)


def _options() -> dict[str, shared.OptionInfo]:
    count = shared.OptionInfo(
        DEFAULT_UNITS,
        "Number of references (units)",
        gr.Slider,
        {"minimum": 1, "maximum": MAX_UNITS, "step": 1},
        section=SECTION,
        category_id="sd",
    )
    pristine = shared.OptionInfo(
        False,
        "Read content prompts with a CLIP file instead of the checkpoint's own text encoder, where one is installed",
        section=SECTION,
        category_id="sd",
    )
    keep = shared.OptionInfo(
        True,
        "Keep reference pictures on this machine, so that pasting an image's settings brings them back",
        section=SECTION,
        category_id="sd",
    )
    measure = shared.OptionInfo(
        False,
        "Measure each result: similarity to the reference's style, to removed content and to the prompt",
        section=SECTION,
        category_id="sd",
    )
    return {
        "instantstyle_units": count.needs_reload_ui(),
        "instantstyle_adapter_dirs": _folders("More folders with IP-Adapter files"),
        "instantstyle_encoder_dirs": _folders("More folders with CLIP image encoders and full CLIP models"),
        "instantstyle_pristine_text": pristine.info("a full CLIP model that goes with the adapter's image encoder"),
        "instantstyle_keep_references": keep.info(
            "also those sent through the API; up to 1 GB, the oldest are deleted first"
        ),
        "instantstyle_measure": measure.info("cosines in the infotext; loads the image encoder once more per picture"),
    }


def _folders(label: str) -> shared.OptionInfo:
    option = shared.OptionInfo("", label, gr.Textbox, {"lines": 2}, section=SECTION, category_id="sd")
    return option.info("one per line")
