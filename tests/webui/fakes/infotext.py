"""modules/infotext_utils.py and processing.create_infotext: settings as text, and back into components."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import gradio as gr

from .callbacks import Swallowed

PARAM = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SIZE = re.compile(r"^(\d+)x(\d+)$")


class PasteField(tuple[Any, Any]):
    """A component, and the key or function by which an infotext fills it."""

    def __new__(cls, component: Any, target: Any, *, api: str | None = None) -> PasteField:
        return super().__new__(cls, (component, target))

    def __init__(self, component: Any, target: Any, *, api: str | None = None) -> None:
        self.api, self.component = api, component
        self.label = target if isinstance(target, str) else None
        self.function = target if callable(target) else None


def create_infotext(p: Any, index: int, use_main_prompt: bool = False) -> str:
    """The text of picture `index` of the batch in progress, or of the grid."""
    shown = {"Steps": p.steps, "Sampler": p.sampler_name, "Seed": p.seeds[index], "Size": f"{p.width}x{p.height}"}
    for key, value in p.extra_generation_params.items():
        shown[key] = value(p=p, index=index, use_main_prompt=use_main_prompt) if callable(value) else value
    negative = f"\nNegative prompt: {p.negative_prompts[index]}" if p.negative_prompts[index] else ""
    listed = ", ".join(f"{key}: {quote(value)}" for key, value in shown.items() if value is not None)
    return f"{p.prompts[index]}{negative}\n{listed}"


def quote(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if any(mark in str(value) for mark in ",\n:") else value


def parse_generation_parameters(text: str) -> dict[str, Any]:
    """Keys and values of the last line, as text; the lines before it are prompts."""
    found: dict[str, Any] = {"Prompt": text.split("\n", maxsplit=1)[0]}
    for key, value in PARAM.findall(text.strip().rpartition("\n")[2]):
        unquoted = json.loads(value) if value[:1] == '"' and value[-1:] == '"' else value
        if size := SIZE.match(unquoted):
            found[f"{key}-1"], found[f"{key}-2"] = size.groups()
        else:
            found[key] = unquoted
    return found


def pasted(fields: Sequence[tuple[Any, Any]], text: str, swallowed: Swallowed) -> dict[Any, Any]:
    """What the paste button makes of each component: a `gr.update` that may be empty."""
    params = parse_generation_parameters(text)
    return {component: _update(component, target, params, swallowed) for component, target in fields}


def _update(component: Any, target: Any, params: dict[str, Any], swallowed: Swallowed) -> Any:
    value = swallowed.guarded(target, params) if callable(target) else params.get(target)
    if value is None:
        return gr.update()
    if isinstance(value, dict):
        return value
    kind = type(component.value)
    return gr.update(value=False if kind is bool and value == "False" else kind(value))
