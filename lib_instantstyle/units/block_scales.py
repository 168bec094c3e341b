"""Block scales as people write them: by address, by ComfyUI's and ControlNet's block numbers, or one a line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UnitError, UnknownBlockError
from .fields import Scales, shown
from .routing import IN_ORDER, blocks_by_number

_EXAMPLE = "up_blocks.0.attentions.1: 1.0"


class BlockScales(Scales):
    """An object {address: scale}, ControlNet's list of eleven numbers, or ComfyUI's text `0:1, 6:1.2`."""

    def parse(self, value: object) -> tuple[tuple[str, float], ...] | None:
        if isinstance(value, str):
            value = scales_in(value) if value.strip() else None
        if isinstance(value, Sequence):
            value = _by_position(value)
        if isinstance(value, Mapping) and value and all(_is_number(name) for name in value):
            value = _by_number(value)
        return super().parse(value)

    def schema(self) -> dict[str, Any]:
        by_address = {**super().schema(), "type": "object"}
        numbers = {"type": "array", "minItems": len(IN_ORDER), "maxItems": len(IN_ORDER), "items": {"type": "number"}}
        return {"oneOf": [by_address, numbers, {"type": "string"}, {"type": "null"}]}


def scales_in(text: str) -> object:
    """Scales from text: JSON, eleven numbers with commas, or `address: scale` pairs, one a line or with commas.

    Raises UnitError for anything else.
    """
    try:
        return json.loads(text) if text.lstrip().startswith(("{", "[")) else _pairs(text)
    except (ValueError, RecursionError):  # no number, no JSON, or JSON without end
        raise UnitError(
            f"must have one block per line, each address once, like {_EXAMPLE}; or eleven numbers; got {shown(text)}."
        ) from None


def _pairs(text: str) -> dict[str, float] | list[float]:
    parts = [part.strip() for part in re.split(r"[\n,]", text) if part.strip()]
    if not any(":" in part for part in parts):
        return [float(part) for part in parts]
    named = [part.rpartition(":") for part in parts]
    scales = {address.strip(): float(scale) for address, _, scale in named}
    if len(scales) < len(named):
        raise ValueError("an address is given twice")
    return scales


def _by_position(value: Sequence[object]) -> dict[str, object]:
    if len(value) != len(IN_ORDER):
        raise UnitError(f"must have {len(IN_ORDER)} numbers, one for each block of SDXL, got {len(value)}.")
    return {block: scale for block, scale in zip(IN_ORDER, value) if scale != 0}


def _by_number(value: Mapping[Any, Any]) -> dict[str, Any]:
    try:
        return blocks_by_number({int(str(number)): scale for number, scale in value.items()})
    except UnknownBlockError as error:
        raise UnitError(error.message) from None


def _is_number(name: object) -> bool:
    return str(name).strip().isdecimal() and len(str(name)) < 4
