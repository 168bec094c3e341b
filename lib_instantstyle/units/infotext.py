"""A unit as one line of a picture's infotext, and back.

The line reads `preset: style, weight: 1.2, content_prompt: "a rabbit, a forest"`: the API's field names, values as JSON
except for plain words. Reading never raises on hostile text: what cannot be read or is out of range is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import InstantStyleError
from .methods import METHODS
from .unit import DEFAULTS, FIELDS, PICTURE_FIELDS, StyleUnit, checked, in_effect, palette_in

MAX_LINE = 100_000  # characters read of a line; the longest that a unit makes has half as many
VERSION_KEY = "InstantStyle version"
ALWAYS_WRITTEN = ("image", "adapter", "preset", "weight")
NOT_WRITTEN = ("enabled",)  # only enabled units are written at all
UNWRITTEN_STRENGTH = 0.5  # of a removal in a line without content_scale, whatever the method: so 0.1.0 wrote it

_PLAIN = re.compile(r"[\w.+-]([\w .+-]*[\w.+-])?")
_KEY = re.compile(r"\s*(\w+):\s*")
_BARE = re.compile(r"[^,]*")
_DECODER = json.JSONDecoder()


def unit_key(number: int) -> str:
    """The infotext key of the unit with that number, counted from 1."""
    return f"InstantStyle {number}"


def to_infotext(unit: StyleUnit) -> str:
    """Everything needed to repeat the unit; in `image` and its like, pictures are given by their hashes."""
    fields = unit.to_dict()
    fields["content_scale"] = None if unit.removal_strength == UNWRITTEN_STRENGTH else unit.removal_strength
    fields["palette"] = None if unit.palette_share == palette_in(unit.method) else unit.palette
    values = {name: value for name, value in fields.items() if _is_written(name, value)}
    values = {name: value for name, value in values.items() if name not in METHODS[unit.method].lacks}
    for name in values.keys() & set(PICTURE_FIELDS):
        values[name] = values[name][0] if len(values[name]) == 1 else values[name]
    return ", ".join(f"{name}: {_write(value)}" for name, value in values.items())


def _is_written(name: str, value: object) -> bool:
    default = list(DEFAULTS[name]) if name in PICTURE_FIELDS else DEFAULTS[name]
    return name in ALWAYS_WRITTEN or (name not in NOT_WRITTEN and value != default)


def _write(value: object) -> str:
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value) and not _is_json(value)
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def from_infotext(text: str) -> dict[str, Any]:
    """The fields that a line holds, checked one by one; pictures come as lists of hashes."""
    if len(text) > MAX_LINE:
        return {}
    fields = {name: value for name, value in _pairs(text) if name in FIELDS and _is_valid(name, value)}
    removal = {**DEFAULTS, **fields}
    is_told = in_effect("content_scale", removal) == UNWRITTEN_STRENGTH or removal["content_scale"] is not None
    return fields if is_told else {**fields, "content_scale": UNWRITTEN_STRENGTH}


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    position = 0
    while found := _KEY.match(text, position):
        try:
            value, position = _read(text, found.end())
        except (ValueError, RecursionError):
            return
        yield found[1], ([value] if found[1] in PICTURE_FIELDS and isinstance(value, str) else value)
        position += 1  # the comma


def _read(text: str, position: int) -> tuple[Any, int]:
    if text[position : position + 1] in ('"', "[", "{"):
        return _DECODER.raw_decode(text, position)
    bare = _BARE.match(text, position)
    word = bare[0].strip() if bare else ""
    return (json.loads(word) if _is_json(word) else word), position + len(bare[0] if bare else "")


def _is_valid(name: str, value: object) -> bool:
    try:
        checked(name, value)
    except InstantStyleError:
        return False
    return value is not None


def units_in(params: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The units among the parameters of a parsed infotext: number → fields."""
    numbered = ((re.fullmatch(r"InstantStyle (\d{1,3})", key), value) for key, value in params.items())
    return {int(found[1]): from_infotext(str(value)) for found, value in numbered if found}
