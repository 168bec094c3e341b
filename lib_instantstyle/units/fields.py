"""The kinds of value a unit's field may hold: how each is checked, and how it is described to API clients.

Kinds are plain frozen objects with two abilities: `parse` (value → value, or UnitError) and `schema`
(JSON Schema). They know nothing of any particular field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from .errors import UnitError

MAX_TEXT = 2000  # characters; CLIP itself reads 77 tokens
MAX_ADDRESSES = 256  # of one unit; SDXL has 70 layers in 11 blocks
MAX_PICTURES = 32  # of one unit; each adds its tokens to every styled layer


class Kind(Protocol):
    """One kind of value: its check and its JSON Schema."""

    def parse(self, value: object) -> Any: ...

    def schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Flag:
    """true or false; 0, 1 and "true" are not taken."""

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise UnitError(f"must be true or false, got {shown(value)}.")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Number:
    """A finite number between `low` and `high`, both included."""

    low: float
    high: float
    optional: bool = False

    def parse(self, value: object) -> float | None:
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UnitError(f"must be a number from {self.low:g} to {self.high:g}, got {shown(value)}.")
        if not self.low <= value <= self.high:  # NaN is never between two numbers
            raise UnitError(f"must be between {self.low:g} and {self.high:g}, got {shown(value)}.")
        return float(value)

    def schema(self) -> dict[str, Any]:
        kind = ["number", "null"] if self.optional else "number"
        return {"type": kind, "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Text:
    """A string of at most MAX_TEXT characters."""

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise UnitError(f"must be a string, got {shown(value)}.")
        if len(value) > MAX_TEXT:
            raise UnitError(f"must have at most {MAX_TEXT} characters, got {len(value)}.")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # JSON may hold them, no picture's text can
            raise UnitError(f"must be text that can be written as UTF-8, got {shown(value)}.")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": MAX_TEXT}


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    choices: tuple[str, ...]

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise UnitError(f"must be one of {', '.join(self.choices)}; got {shown(value)}.")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.choices)}


@dataclass(frozen=True)
class Numbers:
    """Several finite numbers between `low` and `high`, or null; also as text: `1, 0.5`."""

    low: float
    high: float
    most: int

    def parse(self, value: object) -> tuple[float, ...] | None:
        if isinstance(value, str):
            value = _written_numbers(value)
        if value is None:
            return None
        if not isinstance(value, Sequence) or not 0 < len(value) <= self.most:
            raise UnitError(f"must be a list of 1 to {self.most} numbers, got {shown(value)}.")
        kind = Number(self.low, self.high)
        return tuple(float(kind.parse(one) or 0.0) for one in value)

    def schema(self) -> dict[str, Any]:
        one = {"type": "number", "minimum": self.low, "maximum": self.high}
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": self.most}
        return {"oneOf": [many, {"type": "string"}, {"type": "null"}]}


def _written_numbers(text: str) -> list[float] | None:
    if not text.strip():
        return None
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise UnitError(f"must be numbers with commas between them, like 1, 0.5; got {shown(text)}.") from None


def write_numbers(numbers: Sequence[float] | None) -> str:
    """The inverse of `Numbers.parse` on text; "" for none."""
    return ", ".join(f"{number:g}" for number in numbers or ())


@dataclass(frozen=True)
class Scales:
    """A mapping from block addresses to numbers between `low` and `high`, or null."""

    low: float
    high: float

    def parse(self, value: object) -> tuple[tuple[str, float], ...] | None:
        if value is None:
            return None
        if not isinstance(value, Mapping) or not value:
            raise UnitError(f"must be an object {{address: scale}} with at least one entry, got {shown(value)}.")
        if len(value) > MAX_ADDRESSES:
            raise UnitError(f"may have at most {MAX_ADDRESSES} addresses, got {len(value)}.")
        return tuple(self._entry(address, scale) for address, scale in value.items())

    def _entry(self, address: object, scale: object) -> tuple[str, float]:
        if not isinstance(address, str):
            raise UnitError(f"must have block addresses as its keys, got {shown(address)}.")
        try:
            number = Number(self.low, self.high).parse(scale)
        except UnitError as error:
            raise UnitError(f"scale of {shown(address)} {error.message}") from None
        return address, float(number or 0.0)

    def schema(self) -> dict[str, Any]:
        scale = {"type": "number", "minimum": self.low, "maximum": self.high}
        bounds = {"minProperties": 1, "maxProperties": MAX_ADDRESSES}
        return {"type": ["object", "null"], "additionalProperties": scale, **bounds}


@dataclass(frozen=True)
class Pictures:
    """One picture or several: base64 text or data URLs; inside the process PIL images too.

    Only the types are checked here; `reference.pictures` decodes.
    """

    most: int = MAX_PICTURES
    optional: bool = False

    def parse(self, value: object) -> tuple[str | Image.Image, ...]:
        if value is None:
            return ()
        many = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        if len(many) > self.most:
            some = "one picture" if self.most == 1 else f"{self.most} pictures"
            raise UnitError(f"may have at most {some}, got {len(many)}.")
        for one in many:
            if not isinstance(one, (str, Image.Image)):
                raise UnitError(f"must be a base64 string, a data URL or a list of them, got {shown(one)}.")
        return tuple(many)

    def schema(self) -> dict[str, Any]:
        one = {"type": "string", "contentEncoding": "base64"}
        fewest = 0 if self.optional else 1
        return {"oneOf": [one, {"type": "array", "items": one, "minItems": fewest, "maxItems": self.most}]}


class Masks(Pictures):
    """Pictures of which only light and dark count, or opacity where they have some."""


def shown(value: object) -> str:
    """`value` as an error message quotes it: short, whatever a client has sent."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of lists inside each other
        return f"an endless {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
