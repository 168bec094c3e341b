"""The script's argument list, as the WebUI passes it: API slots first, then the panel's switch and controls.

An API payload fills the slots with JSON objects, one for each unit; there is one slot more than units allowed, so that
a surplus unit is seen and refused (the WebUI drops what exceeds the list). The order of PANEL_VALUES is permanent:
new controls go to its end.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from ..units.block_scales import scales_in
from ..units.errors import UnitError, placed
from ..units.fields import shown
from ..units.groups import STRENGTHS
from ..units.methods import ADAPTER, METHODS
from ..units.routing import CUSTOM, PRESETS
from ..units.unit import DEFAULTS, StyleUnit, palette_in, parse_units

NO_UNIT = "no unit"  # an empty slot; not null, which a client may send by mistake and must hear about
PANEL_VALUES = (
    "enabled",
    "image",
    "more_pictures",
    "adapter",
    "preset",
    "weight",
    "layout_weight",
    "blocks",
    "content_prompt",
    "content_scale",
    "content_method",
    "start",
    "end",
    "content_renorm",
    "content_image",
    "negative_image",
    "push_weight",
    "curve",
    "layout_curve",
    "passes",
    "fusion",
    "kv_scaling",
    "crop",
    "combine",
    "image_weights",
    "mask",
    "image_mask",
    "method",
    "lora",
    "negative_noise",
    "leak_guard",
    "palette",
    "attention_guidance",
)

ONE_PICTURE = (
    "content_image",
    "negative_image",
    "mask",
    "image_mask",
)  # fields whose control holds one picture or none
MEANT_FOR_A_PICTURE = ("content_prompt", *ONE_PICTURE, "blocks")  # sliders may have been set long before


def unit_limit(args: Sequence[object]) -> int:
    """How many units this argument list has room for: n + 1 slots, the switch, n times the controls."""
    return (len(args) - 2) // (len(PANEL_VALUES) + 1)


def requested_units(args: Sequence[Any]) -> tuple[StyleUnit, ...]:
    """The units that a payload or the panel asks for; none when the panel is switched off. Raises UnitError."""
    limit = unit_limit(args)
    slots, is_on, values = args[: limit + 1], args[limit + 1], args[limit + 2 :]
    sent = [slot for slot in slots if slot != NO_UNIT]
    if sent:
        return parse_units(sent, limit)
    return parse_units(panel_units(values), limit) if is_on else ()


def panel_units(values: Sequence[Any]) -> list[dict[str, Any]]:
    """One JSON-like unit for each tab of the panel; untouched tabs are disabled."""
    width = len(PANEL_VALUES)
    tabs = [dict(zip(PANEL_VALUES, values[at : at + width])) for at in range(0, len(values), width)]
    units = [_panel_unit(number, tab) for number, tab in enumerate(tabs, start=1)]
    if not any(unit["enabled"] for unit in units):
        raise UnitError(
            "InstantStyle is on but has no reference picture. Add one, or switch InstantStyle off.", "image", 1
        )
    return units


def unit_to_analyse(tab: dict[str, Any]) -> StyleUnit:
    """The unit that some of a tab's controls make, for looking at its reference. Raises UnitError."""
    fields = {**tab, **_pictures(tab)}
    del fields["more_pictures"]
    return StyleUnit.from_dict(fields)


def _pictures(tab: dict[str, Any]) -> dict[str, Any]:
    """The picture fields of those controls that are there."""
    more = [base64.b64encode(data).decode() for data in _files(tab["more_pictures"])]
    single = {name: (tab[name],) if tab[name] else () for name in ONE_PICTURE if name in tab}
    return {"image": [picture for picture in (tab["image"], *more) if picture is not None], **single}


def _files(value: Any) -> Sequence[bytes]:
    if not isinstance(value or [], (list, tuple)) or not all(isinstance(one, bytes) for one in value or ()):
        raise UnitError(f"More pictures must be uploaded files, got {shown(value)}. Put them into image.", "image")
    return value or ()


def _panel_unit(number: int, tab: dict[str, Any]) -> dict[str, Any]:
    """A tab without a picture counts as unused only if nothing says what to do with one, or that it needs none."""
    unit = {name: value for name, value in tab.items() if name in DEFAULTS} | _pictures(tab)
    unit["blocks"] = read_blocks(tab["blocks"], number) if unit["preset"] == CUSTOM and unit["enabled"] else None
    has_layout = str(unit["preset"]) in PRESETS and PRESETS[unit["preset"]].layout_weighted
    unit["layout_weight"] = tab["layout_weight"] if has_layout else None
    unit["layout_curve"] = tab["layout_curve"] or None
    if not (str(unit["preset"]) in PRESETS and PRESETS[unit["preset"]].pushes):
        unit["push_weight"] = None
    if unit["content_scale"] == STRENGTHS.get(str(unit["content_method"])):
        unit["content_scale"] = None  # as good as not given, so that it follows a method chosen elsewhere, by X/Y/Z
    if unit["palette"] == palette_in(str(unit["method"])):
        unit["palette"] = None
    hidden = METHODS[str(unit["method"])].lacks if str(unit["method"]) in METHODS else ()
    unit |= {name: DEFAULTS[name] for name in hidden}
    unused = unit["method"] == ADAPTER and not unit["image"] and not any(unit[name] for name in MEANT_FOR_A_PICTURE)
    return {**unit, "enabled": bool(unit["enabled"]) and not unused}


def strength_after(chosen: str, before: str, strength: float) -> float:
    """The removal strength once another method is chosen: one that was left alone follows the method."""
    return STRENGTHS[chosen] if strength == STRENGTHS[before] else strength


def palette_after(chosen: str, before: str, palette: float) -> float:
    """The palette once another method is chosen, likewise."""
    return palette_in(chosen) if palette == palette_in(before) else palette


def read_blocks(text: object, number: int) -> object:
    """Custom blocks as typed, for the unit's own check; None for nothing. Raises UnitError for what is not text."""
    if not isinstance(text, str):
        raise UnitError(f"must be text with one block per line, got {shown(text)}.", "blocks", number)
    if not text.strip():
        return None
    with placed(field="blocks", unit=number):
        return scales_in(text)


def write_blocks(blocks: dict[str, float] | None) -> str:
    """The inverse of `read_blocks`, for pasting."""
    return "\n".join(f"{address}: {scale}" for address, scale in (blocks or {}).items())
