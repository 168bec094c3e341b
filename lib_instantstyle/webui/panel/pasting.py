"""Infotext → components: what "PNG Info → Send to" and the paste button put into the panel, and what they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from ...reference.store import PictureStore
from ...units.curves import write_curve
from ...units.fields import write_numbers
from ...units.infotext import unit_key, units_in
from ...units.unit import DEFAULTS, FIELDS, in_effect
from ..arguments import ONE_PICTURE, write_blocks
from .readiness import status_html

Paste = Callable[[Mapping[str, Any]], Any]
UPLOADED = "more_pictures"  # files, which gradio cannot hand on to another component
LOST = "InstantStyle lost"


class Target(str):
    """Where an infotext is pasted to: a name, by which txt2img's control finds img2img's, and what it becomes."""

    paste: Paste

    def __new__(cls, name: str, paste: Paste) -> Target:
        made = super().__new__(cls, name)
        made.paste = paste
        return made

    def __call__(self, params: Mapping[str, Any]) -> Any:
        return self.paste(params)


def travels(target: str) -> bool:
    """Whether "Send to img2img" under a picture takes the control's value along."""
    return target != LOST and not target.endswith(UPLOADED)


def switch_target() -> Target:
    """On with any unit in the infotext; a picture made without style switches the panel off."""
    return Target("InstantStyle", lambda params: bool(units_in(params)))


def control_target(number: int, name: str, pictures: PictureStore) -> Target:
    """What unit `number`'s component `name` becomes; with no unit in the infotext, components stay as they are."""

    def paste(params: Mapping[str, Any]) -> Any:
        units = units_in(params)
        if not units:
            return None
        fields = {**DEFAULTS, **units.get(number, {"enabled": False})}
        return gr.update(value=_component_value(name, fields, pictures))

    return Target(f"{unit_key(number)} {name}", paste)


def lost_target(limit: int, pictures: PictureStore) -> Target:
    """A line that says what an infotext holds and a panel with `limit` units cannot bring back."""

    def paste(params: Mapping[str, Any]) -> Any:
        lost = "; ".join(_lost(units_in(params), limit, pictures))
        return gr.update(visible=bool(lost), value=status_html([f"Not restored: {lost}."] if lost else []))

    return Target(LOST, paste)


def _lost(units: Mapping[int, Mapping[str, Any]], limit: int, pictures: PictureStore) -> Iterator[str]:
    for number, fields in units.items():
        if number > limit:
            yield f"reference {number} (raise the number of references in Settings → InstantStyle)"
            continue
        for name in ("image", *ONE_PICTURE):
            hashes, what = fields.get(name, ()), f"{FIELDS[name].label.lower()} {number}"
            kept = hashes[:1] if name in ONE_PICTURE else hashes
            if len(hashes) > len(kept):
                yield f"{what}: the panel takes only one of {len(hashes)}"
            if gone := [one for one in kept if not pictures.path(one)]:
                yield f"{what}: {len(gone)} of {len(kept)} not kept on this machine"


def _component_value(name: str, fields: dict[str, Any], pictures: PictureStore) -> Any:
    hashes = list(fields[name if name in ONE_PICTURE else "image"])
    if name in ("image", *ONE_PICTURE):
        return pictures.get(hashes[0]) if hashes else None
    if name == UPLOADED:
        return [str(path) for picture in hashes[1:] if (path := pictures.path(picture))] or None
    if name == "blocks":
        return write_blocks(fields["blocks"])
    if name in ("curve", "layout_curve"):
        return write_curve(fields[name])
    if name == "image_weights":
        return write_numbers(fields[name])
    return in_effect(name, fields)
