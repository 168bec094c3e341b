"""What a user can ask for: one frozen record per unit, and the schema that UI, API, infotext and docs derive from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from PIL import Image

from .errors import InstantStyleError, UnitError
from .fields import Choice, Flag, Kind, Number, Pictures, Scales, Text, shown
from .routing import CUSTOM, PRESETS
from .schedule import Window

AUTO_ADAPTER = "auto"
CONTENT_METHODS = ("subtract", "project", "auto", "off")
NO_REMOVAL = "off"


@dataclass(frozen=True)
class FieldSpec:
    """What the schema says of one field."""

    kind: Kind
    label: str  # as the panel and the infotext call it
    help: str  # one sentence for tooltips, API schema and docs


def _field(default: Any, kind: Kind, label: str, help: str) -> Any:
    return field(default=default, metadata={"spec": FieldSpec(kind, label, help)})


@dataclass(frozen=True)
class StyleUnit:
    """One style request: reference pictures, where their style goes, how strongly and when."""

    enabled: bool = _field(True, Flag(), "Use this reference", "Whether this unit takes part.")
    image: tuple[str | Image.Image, ...] = _field(
        (), Pictures(), "Reference picture", "The picture whose style is taken; several are read as one style."
    )
    adapter: str = _field(
        AUTO_ADAPTER, Text(), "Adapter", "IP-Adapter file to use, by its name without ending; auto picks the best."
    )
    preset: str = _field(
        "style", Choice(tuple(PRESETS)), "Preset", "Which cross-attention blocks see the reference picture."
    )
    weight: float = _field(1.0, Number(-1, 3), "Style weight", "How strongly the reference acts; 0 is off.")
    layout_weight: float | None = _field(
        None,
        Number(-1, 3, optional=True),
        "Layout weight",
        "Weight of the layout block in the preset style_and_layout; the style weight when not given.",
    )
    blocks: tuple[tuple[str, float], ...] | None = _field(
        None,
        Scales(-1, 3),
        "Custom blocks",
        "For the preset custom: block addresses with scales; scale × weight acts, the most specific address wins.",
    )
    content_prompt: str = _field(
        "", Text(), "Content to remove", "What to take out of the reference, in words: a rabbit, a forest."
    )
    content_scale: float = _field(
        0.5,
        Number(0, 2),
        "Removal strength",
        "How much of the content is taken out; 0 is off. At 1 project takes all of it, auto just enough.",
    )
    content_method: str = _field(
        "subtract",
        Choice(CONTENT_METHODS),
        "Removal method",
        "subtract: the paper's, embedding minus scale × text; project: only the component along each phrase goes; "
        "auto: as much of it as makes each phrase no more similar than unrelated text; off: nothing goes.",
    )
    content_renorm: bool = _field(
        False, Flag(), "Restore the length", "Whether the embedding gets back the length it had before the removal."
    )
    content_image: tuple[str | Image.Image, ...] = _field(
        (),
        Pictures(optional=True),
        "Picture to remove",
        "A picture of what to take out of the reference, by the same method and at the same strength.",
    )
    negative_image: tuple[str | Image.Image, ...] = _field(
        (),
        Pictures(most=1, optional=True),
        "Picture to avoid",
        "What the unconditional side sees instead of nothing: the result moves away from it.",
    )
    start: float = _field(0.0, Number(0, 1), "Start", "Share of the sampling steps at which the style sets in.")
    end: float = _field(1.0, Number(0, 1), "End", "Share of the sampling steps at which the style ends.")

    @property
    def window(self) -> Window:
        return Window(self.start, self.end)

    @property
    def removes_content(self) -> bool:
        """Whether there is anything to take out of the reference."""
        named = bool(self.content_prompt.strip()) or bool(self.content_image)
        return named and self.content_scale > 0 and self.content_method != NO_REMOVAL

    @classmethod
    def from_dict(cls, data: object) -> StyleUnit:
        """A checked unit from a JSON object.

        Names, types and ranges are always checked; what the fields say together, only when the unit is enabled.
        Raises UnitError naming the field.
        """
        if not isinstance(data, Mapping):
            raise UnitError(f'A unit must be a JSON object like {{"image": "…"}}, got {shown(data)}.')
        unit = cls(**{name: _checked(name, value) for name, value in data.items()})
        if unit.enabled:
            unit.check()
        return unit

    def check(self) -> None:
        """Raise UnitError where fields contradict each other."""
        if not self.image:
            raise UnitError("A unit needs a reference picture; none was given.", "image")
        if self.preset == CUSTOM and not self.blocks:
            raise UnitError("The preset custom needs blocks, an object {address: scale}; none was given.", "blocks")
        if self.preset != CUSTOM and self.blocks is not None:
            raise UnitError(f"blocks go with the preset custom only; the preset is {self.preset}.", "blocks")
        if self.start >= self.end:
            raise UnitError(f"start must lie before end; got start {self.start:g} and end {self.end:g}.", "start")

    def to_dict(self) -> dict[str, Any]:
        """The unit as JSON-like values: lists and dicts instead of tuples."""
        data = {spec_field.name: getattr(self, spec_field.name) for spec_field in fields(self)}
        data |= {name: list(data[name]) for name in PICTURE_FIELDS}
        data["blocks"] = dict(self.blocks) if self.blocks is not None else None
        return data


FIELDS: dict[str, FieldSpec] = {one.name: one.metadata["spec"] for one in fields(StyleUnit)}
PICTURE_FIELDS = tuple(name for name, spec in FIELDS.items() if isinstance(spec.kind, Pictures))
DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(StyleUnit)}


def _checked(name: object, value: object) -> Any:
    if name not in FIELDS:
        near = difflib.get_close_matches(str(name)[:60], FIELDS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UnitError(f"There is no such field. {hint}Fields: {', '.join(FIELDS)}.", _speakable(name))
    try:
        return FIELDS[str(name)].kind.parse(value)
    except InstantStyleError as error:
        raise error.at(field=str(name)) from None


def _speakable(name: object) -> str:
    """A client's field name as an answer can carry it back: not endless, and without lone surrogates."""
    return str(name)[:60].encode("utf-8", "replace").decode("utf-8")


def parse_units(values: Sequence[object], limit: int) -> tuple[StyleUnit, ...]:
    """Checked units from JSON objects; errors carry the unit's number, counted from 1.

    Raises UnitError when there are more than `limit`.
    """
    if len(values) > limit:
        raise UnitError(
            f"At most {limit} units are allowed here, got {len(values)}. "
            "The number can be raised in Settings → InstantStyle.",
            unit=limit + 1,
        )
    return tuple(_numbered(number, value) for number, value in enumerate(values, start=1))


def _numbered(number: int, value: object) -> StyleUnit:
    try:
        return StyleUnit.from_dict(value)
    except InstantStyleError as error:
        raise error.at(unit=number) from None


def unit_schema() -> dict[str, Any]:
    """JSON Schema of a unit, as GET /instantstyle/unit publishes it."""
    return {
        "type": "object",
        "required": ["image"],
        "additionalProperties": False,
        "properties": {name: _property(name, spec) for name, spec in FIELDS.items()},
    }


def _property(name: str, spec: FieldSpec) -> dict[str, Any]:
    described = {**spec.kind.schema(), "title": spec.label, "description": spec.help}
    return described if name == "image" else {**described, "default": DEFAULTS[name]}
