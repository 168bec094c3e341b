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

    @property
    def is_constant(self) -> bool:
        return not self.points and self.name == CONSTANT

    def value(self) -> str | list[list[float]]:
        """The curve as a payload and an infotext have it."""
        return [list(point) for point in self.points] if self.points else self.name


ALWAYS = Curve()


@dataclass(frozen=True)
class CurveField:
    """A field that holds a curve: a name, or a list of [share, factor] points."""

    def parse(self, value: object) -> Curve:
        if isinstance(value, Curve):
            return value
        if isinstance(value, str) and value in NAMED:
            return Curve(value)
        if isinstance(value, str) or not isinstance(value, Sequence) or not 0 < len(value) <= MAX_POINTS:
            raise UnitError(
                f"must be one of {', '.join(NAMED)}, or a list of 1 to {MAX_POINTS} points "
                f"[share of the steps, factor]; got {shown(value)}."
            )
        points = tuple(self._point(point) for point in value)
        shares = [share for share, _ in points]
        if any(later <= earlier for earlier, later in pairwise(shares)):
            raise UnitError(f"must have points with rising shares of the steps, got {shown(shares)}.")
        return Curve(points=points)

    @staticmethod
    def _point(point: object) -> tuple[float, float]:
        if not isinstance(point, Sequence) or isinstance(point, str) or len(point) != 2:
            raise UnitError(f"must have points [share of the steps, factor], got {shown(point)}.")
        share, factor = Number(0, 1).parse(point[0]), Number(LOWEST, HIGHEST).parse(point[1])
        return float(share or 0.0), float(factor or 0.0)

    def schema(self) -> dict[str, Any]:
        bounds = [{"minimum": 0, "maximum": 1}, {"minimum": LOWEST, "maximum": HIGHEST}]
        point = {"type": "array", "prefixItems": [{"type": "number", **one} for one in bounds], "minItems": 2}
        many = {"type": "array", "items": {**point, "maxItems": 2}, "minItems": 1, "maxItems": MAX_POINTS}
        return {"oneOf": [{"type": "string", "enum": list(NAMED)}, many]}
