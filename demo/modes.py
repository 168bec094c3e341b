"""The ways of using a reference that are compared, from none of it to all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lib_instantstyle.core.units import StyleUnit


@dataclass(frozen=True)
class Mode:
    """One way. `fields` are a unit's; None: no unit at all."""

    name: str
    fields: Mapping[str, Any] | None = field(default_factory=dict)
    removes: bool = False  # whether the reference's content is named and taken out

    def units(self, reference: Image.Image, content: str) -> tuple[StyleUnit, ...]:
        """The units with which a reference, whose content is known, is used in this way."""
        if self.fields is None:
            return ()
        named = {"content_prompt": content} if self.removes else {}
        return (StyleUnit.from_dict({"image": reference, **named, **self.fields}),)


PLAIN = Mode("prompt alone", None)
ORIGINAL = Mode("original IP-Adapter", {"preset": "original"})
ORIGINAL_REMOVED = Mode("original, content removed", {"preset": "original"}, removes=True)


@dataclass(frozen=True)
class Roles:
    """The blocks that carry style, and those for style and layout, as fields of a unit."""

    style: Mapping[str, Any]
    style_and_layout: Mapping[str, Any]

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What is compared, from no reference at all to most of it."""
        return (
            PLAIN,
            ORIGINAL,
            ORIGINAL_REMOVED,
            Mode("style only", self.style),
            Mode("style, content removed", self.style, removes=True),
            Mode("style + layout", self.style_and_layout),
        )


SDXL = Roles({"preset": "style"}, {"preset": "style_and_layout"})
# Where style and places enter the drawn world's pictures, which is not where SDXL has them: docs/evaluation.md.
WORLD = Roles(
    {"preset": "custom", "blocks": {"up_blocks.1": 1.0}},
    {"preset": "custom", "blocks": {"up_blocks.1": 1.0, "down_blocks.1": 1.0}},
)
