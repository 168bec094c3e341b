"""What a user can ask for: one frozen record per unit, and the schema that UI, API, infotext and docs derive from."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import LABELS, UnitError, placed
from .fields import Masks, Pictures, shown
from .groups import STRENGTHS, Removal, Source, When, Where
from .methods import METHODS, PALETTE, Method
from .routing import PRESETS
from .spec import FieldSpec, specs_of


@dataclass(frozen=True)
class StyleUnit(When, Removal, Where, Source):  # a dataclass has the fields of its last base first
    """One style request: reference pictures, where their style goes, how strongly and when."""

    @classmethod
    def from_dict(cls, data: object) -> StyleUnit:
        """A checked unit from a JSON object; null stands for a field's default.

        Names, types and ranges are always checked; what the fields say together, only when the unit is enabled.
        Raises UnitError naming the field.
        """
        if not isinstance(data, Mapping):
            raise UnitError(f'A unit must be a JSON object like {{"image": "…"}}, got {shown(data)}.')
        unit = cls(**{name: checked(name, value) for name, value in data.items()})
        if unit.enabled:
            unit.check()
        return unit

    def check(self) -> None:
        """Raise UnitError where fields contradict each other."""
        self.check_source()
        _check_meaning(self)
        self.check_where()
        self.check_removal()
        self.check_when()

    @property
    def palette_share(self) -> float:
        """palette, or its default with the unit's method."""
        return palette_in(self.method) if self.palette is None else self.palette

    def to_dict(self) -> dict[str, Any]:
        """The unit as JSON-like values: lists and dicts instead of tuples."""
        data = {name: getattr(self, name) for name in FIELDS}
        data |= {name: list(data[name]) for name in PICTURE_FIELDS}
        data["blocks"] = dict(self.blocks) if self.blocks is not None else None
        return data


FIELDS: dict[str, FieldSpec] = specs_of(StyleUnit)
PICTURE_FIELDS = tuple(name for name, spec in FIELDS.items() if isinstance(spec.kind, Pictures))
MASK_FIELDS = tuple(name for name, spec in FIELDS.items() if isinstance(spec.kind, Masks))
DEFAULTS: dict[str, Any] = {name: getattr(StyleUnit, name) for name in FIELDS}
LABELS.update({name: spec.label for name, spec in FIELDS.items()})


def palette_in(method: str) -> float:
    """What palette is with a method, if not given."""
    return 1.0 if method == PALETTE else 0.0


def _check_meaning(unit: StyleUnit) -> None:
    """Raise UnitError for a field that means nothing with the unit's method."""
    method = METHODS[unit.method]
    for name in method.lacks:
        if getattr(unit, name) != DEFAULTS[name]:
            raise UnitError(
                f"has no effect with the method {method.name}. Leave it out, or choose another method.", name
            )
    if unit.palette_share and not unit.image:
        raise UnitError("takes the colours of a picture; none was given.", "palette")
    if PRESETS[unit.preset].pushes and "push_weight" in method.lacks:
        precise = f"The preset {unit.preset} cannot be used with the method {method.name}"
        raise UnitError(f"{precise}: it pushes away from a reference picture. Choose another preset.", "preset")


def checked(name: object, value: object) -> Any:
    """What one field of a unit holds. Raises UnitError naming the field."""
    if name not in FIELDS:
        near = difflib.get_close_matches(str(name)[:60], FIELDS, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UnitError(f"There is no such field. {hint}Fields: {', '.join(FIELDS)}.", _speakable(name))
    if value is None:
        return DEFAULTS[str(name)]
    with placed(field=str(name)):
        return FIELDS[str(name)].kind.parse(value)


def _speakable(name: object) -> str:
    """A client's field name as an answer can carry it back: not endless, and without lone surrogates."""
    return str(name)[:60].encode("utf-8", "replace").decode("utf-8")


def in_effect(name: str, unit: Mapping[str, Any]) -> Any:
    """What a field comes to in a unit with all its fields, where its default is another field's affair."""
    if unit[name] is not None:
        return unit[name]
    others = {
        "layout_weight": unit["weight"],
        "content_scale": STRENGTHS[unit["content_method"]],
        "push_weight": PRESETS[unit["preset"]].push_weight or 1.0,
        "palette": palette_in(unit["method"]),
    }
    return others.get(name)


def parse_units(values: Sequence[object], limit: int) -> tuple[StyleUnit, ...]:
    """Checked units from JSON objects; errors carry the unit's number, counted from 1.

    Raises UnitError when there are more than `limit`.
    """
    if len(values) > limit:
        raise UnitError(
            f"At most {limit} references are allowed here, got {len(values)}. "
            "The number can be raised in Settings → InstantStyle.",
            unit=limit + 1,
        )
    return tuple(_numbered(number, value) for number, value in enumerate(values, start=1))


def _numbered(number: int, value: object) -> StyleUnit:
    with placed(unit=number):
        return StyleUnit.from_dict(value)


def unit_schema() -> dict[str, Any]:
    """JSON Schema of a unit, as GET /instantstyle/unit publishes it."""
    return {
        "type": "object",
        "oneOf": [_required_with(method) for method in METHODS.values()],
        "additionalProperties": False,
        "properties": {name: _property(name, spec) for name, spec in FIELDS.items()},
    }


def _required_with(method: Method) -> dict[str, Any]:
    required = [name for name in (method.needs, "method" if method.name != DEFAULTS["method"] else "") if name]
    return {"properties": {"method": {"const": method.name}}, "required": required}


def _property(name: str, spec: FieldSpec) -> dict[str, Any]:
    described = {**spec.kind.schema(), "title": spec.label, "description": spec.help}
    return described if name == "image" else {**described, "default": DEFAULTS[name]}
