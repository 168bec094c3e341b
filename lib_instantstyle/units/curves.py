"""How strongly a unit acts from step to step: a curve over the progress of sampling, a factor on its weight.

A curve is a list of [share of the steps, factor] points, linear between them and level outside them, or a name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .errors import UnitError
from .fields import Number, shown

MAX_POINTS = 64
LOWEST, HIGHEST = -3.0, 3.0  # of a factor

# Progress t, 0 to 1 → factor.
NAMED: Mapping[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "fade_in": lambda t: t,
    "fade_out": lambda t: 1.0 - t,
    "fade_in_out": lambda t: 1.0 - abs(2.0 * t - 1.0),
    "ease_in": lambda t: t * t,  # slowly at first
    "ease_out": lambda t: 1.0 - t * t,  # slowly at first
    "ease_in_out": lambda t: t * t * (3.0 - 2.0 * t),
}
CONSTANT = "constant"
CurveValue = str | tuple[tuple[float, float], ...]  # a name, or points
_RULE = f"one of {', '.join(NAMED)}, or 1 to {MAX_POINTS} points [share of the steps, factor]"


@dataclass(frozen=True)
class Curve:
    """A factor for each model call of a sampling pass."""

    name: str = CONSTANT
    points: tuple[tuple[float, float], ...] = ()  # by their shares; none when the curve has a name

    def at(self, progress: float) -> float:
        """The factor at a progress of 0 to 1."""
        if not self.points:
            return NAMED[self.name](progress)
        after = bisect_right([share for share, _ in self.points], progress)
        if after in (0, len(self.points)):
            return self.points[max(after - 1, 0)][1]
        (left, low), (right, high) = self.points[after - 1 : after + 1]
        return low + (high - low) * (progress - left) / (right - left)

    @classmethod
    def of(cls, value: CurveValue) -> Curve:
        """The curve that a unit's field holds."""
        return cls(value) if isinstance(value, str) else cls(points=value)


ALWAYS = Curve()


@dataclass(frozen=True)
class CurveField:
    """A field that holds a curve: a name, [share, factor] points, or the same as text: `0: 0.2, 0.5: 1`."""

    optional: bool = False

    def parse(self, value: object) -> CurveValue | None:
        if value is None and self.optional:
            return None
        if isinstance(value, str):
            if value in NAMED:
                return value
            value = _written(value)
        if not isinstance(value, Sequence) or not 0 < len(value) <= MAX_POINTS:
            raise UnitError(f"must be {_RULE}; got {shown(value)}.")
        points = tuple(_point(point) for point in value)
        if not any(factor for _, factor in points):
            raise UnitError("must have a factor other than 0. To turn the reference off, set its weight to 0.")
        shares = [share for share, _ in points]
        if any(later <= earlier for earlier, later in pairwise(shares)):
            raise UnitError(f"must have points in ascending order of their share of the steps, got {shown(shares)}.")
        return points

    def schema(self) -> dict[str, Any]:
        bounds: list[dict[str, Any]] = [{"minimum": 0, "maximum": 1}, {"minimum": LOWEST, "maximum": HIGHEST}]
        pair: list[dict[str, Any]] = [{"type": "number", **one} for one in bounds]
        point = {"type": "array", "prefixItems": pair, "minItems": 2}
        many = {"type": "array", "items": {**point, "maxItems": 2}, "minItems": 1, "maxItems": MAX_POINTS}
        kinds: list[dict[str, Any]] = [{"type": "string", "examples": list(NAMED)}, many]
        return {"oneOf": [*kinds, {"type": "null"}] if self.optional else kinds}


def write_curve(value: CurveValue | None) -> str:
    """A curve as text that `CurveField` reads; "" for none."""
    return value if isinstance(value, str) else ", ".join(f"{share:g}: {factor:g}" for share, factor in value or ())


def _written(text: str) -> list[list[float]]:
    try:
        return [[float(number) for number in point.split(":")] for point in text.split(",")]
    except ValueError:
        raise UnitError(f"must be {_RULE}; got {shown(text)}.") from None


def _point(point: object) -> tuple[float, float]:
    if not isinstance(point, Sequence) or isinstance(point, str) or len(point) != 2:
        raise UnitError(f"must have points [share of the steps, factor], got {shown(point)}.")
    share, factor = Number(0, 1).parse(point[0]), Number(LOWEST, HIGHEST).parse(point[1])
    return float(share or 0.0), float(factor or 0.0)
