"""Infotext → components: what "PNG Info → Send to" and the paste button put into the panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from ..core.embed_store import PictureStore
from ..core.infotext import units_in
from ..core.units import AUTO_ADAPTER, DEFAULTS
from .arguments import ONE_PICTURE, write_blocks

Paste = Callable[[Mapping[str, Any]], Any]


def is_pasted(params: Mapping[str, Any]) -> bool:
    """Whether the infotext has any unit: a picture made without style switches the panel off."""
    return bool(units_in(params))


def pasted_value(number: int, name: str, pictures: PictureStore) -> Paste:
    """What unit `number`'s component `name` becomes; with no unit in the infotext, components stay as they are."""

    def paste(params: Mapping[str, Any]) -> Any:
        units = units_in(params)
        if not units:
            return None
        fields = {**DEFAULTS, **units.get(number, {"enabled": False})}
        return gr.update(value=_component_value(name, fields, pictures))

    return paste


def _component_value(name: str, fields: dict[str, Any], pictures: PictureStore) -> Any:
    hashes = list(fields[name if name in ONE_PICTURE else "image"])
    if name in ("image", *ONE_PICTURE):
        return pictures.get(hashes[0]) if hashes else None
    if name == "more_pictures":
        return [str(path) for picture in hashes[1:] if (path := pictures.path(picture))] or None
    if name == "blocks":
        return write_blocks(fields["blocks"])
    if name == "layout_weight" and fields[name] is None:
        return fields["weight"]
    return fields.get(name, AUTO_ADAPTER)
