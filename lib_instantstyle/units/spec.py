"""One row of a unit's schema: a field's default, what it may hold, and what people are told about it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from .fields import Kind


@dataclass(frozen=True)
class FieldSpec:
    """What the schema says of one field."""

    kind: Kind
    label: str  # as the panel and messages call it
    help: str  # one sentence or two for tooltips, the API's schema and docs


def asked(default: Any, kind: Kind, label: str, help: str) -> Any:
    """A dataclass field with its row of the schema."""
    return field(default=default, metadata={"spec": FieldSpec(kind, label, help)})


def specs_of(unit: type) -> dict[str, FieldSpec]:
    """The rows of a dataclass by the names of its fields, in their order."""
    return {one.name: one.metadata["spec"] for one in fields(unit)}
