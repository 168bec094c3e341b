"""The ways of using a reference that are compared, from none of it to all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lib_instantstyle.units.unit import StyleUnit


@dataclass(frozen=True)
class Mode:
    """One way. `fields` are a unit's; None: no unit at all."""

    name: str
    fields: Mapping[str, Any] | None = field(default_factory=dict)
    removes: bool = False  # whether the reference's content is named and taken out
    learns: bool = False  # whether a B-LoRA of the reference stands for it

    def units(self, reference: Image.Image, content: str) -> tuple[StyleUnit, ...]:
        """The units with which a reference, whose content is known, is used in this way."""
        if self.fields is None:
            return ()
        named = {"content_prompt": content} if self.removes else {}
        shown = {} if self.learns else {"image": reference}
        return (StyleUnit.from_dict({**shown, **named, **self.fields}),)


PLAIN = Mode("prompt alone", None)
ORIGINAL = Mode("original IP-Adapter", {"preset": "original"})
ORIGINAL_REMOVED = Mode("original, content removed", {"preset": "original"}, removes=True)
STYLE = Mode("style only", {"preset": "style"})
STYLE_REMOVED = Mode("style, content removed", {"preset": "style"}, removes=True)
STYLE_AND_LAYOUT = Mode("style + layout", {"preset": "style_and_layout"})
SUBTRACTED = Mode(
    "content subtracted", {"preset": "original", "content_method": "subtract", "content_scale": 0.5}, removes=True
)
BOTH = Mode(
    "style block and subtraction",
    {"preset": "style", "content_method": "subtract", "content_scale": 0.5},
    removes=True,
)


SHARED = Mode("shared (StyleAligned)", {"method": "shared"})
SWAPPED = Mode("swapped (Visual Style Prompting)", {"method": "swapped"})
GUARDED = Mode("swapped, guarded (StyleKeeper)", {"method": "swapped", "leak_guard": True})
COLOURS = Mode("colours only", {"method": "palette"})
LEARNED = Mode("B-LoRA of the reference", {"method": "lora", "lora": "b-lora"}, learns=True)


def weighted(weight: float) -> Mode:
    """The original adapter at another weight."""
    return Mode(f"original, weight {weight:g}", {"preset": "original", "weight": weight})


# What the demo measures, and what its sheet compares; another method is another entry.
MODES = (PLAIN, ORIGINAL, ORIGINAL_REMOVED, STYLE, STYLE_REMOVED, STYLE_AND_LAYOUT)
COMPARED = (  # what the paper compares itself with
    *map(weighted, (0.5, 0.75, 1.0)),
    STYLE,
    STYLE_REMOVED,
    SHARED,
    SWAPPED,
    GUARDED,
    COLOURS,
    LEARNED,
)
ABLATION = (PLAIN, *map(weighted, (0.25, 0.5, 0.75, 1.0)), SUBTRACTED, STYLE, BOTH)
