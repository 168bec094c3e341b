"""The sum of all units in one layer: those that are simply added in one go, the others one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .fusions import guided, term
from .key_values import ImageKeyValue, KeyValueStack, stack
from .regions import Place

KEPT_STACKS = 8  # row patterns of one layer whose keys and values stay laid out; a job has one to three


@dataclass(frozen=True)
class Stacks:
    """Keys and values of a layer's units, laid out once for a pattern of rows; a curve's factor is multiplied in."""

    heads: int
    _kept: dict[Any, KeyValueStack] = field(default_factory=dict)

    def of(
        self, units: Sequence[ImageKeyValue], rows: Sequence[bool], like: Tensor, factors: Sequence[float]
    ) -> KeyValueStack:
        """As `stack`."""
        if any(unit.scaling != "v" for unit in units):
            return stack(units, rows, self.heads, like, factors)
        named = tuple((id(unit.key), id(unit.value), unit.scale) for unit in units)  # a unit keeps its tensors alive
        pattern = (named, tuple(rows), like.dtype, like.device)
        if pattern not in self._kept:
            if len(self._kept) >= KEPT_STACKS:
                self._kept.clear()
            self._kept[pattern] = stack(units, rows, self.heads, like)
        return self._kept[pattern].weighted(factors)

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()


@dataclass(frozen=True)
class Fused:
    """One unit whose attention joins the text's in another way than by being added, or in a region only."""

    fusion: str
    share: Tensor | float  # of the term: (1, positions, 1) in a region
    attention: KeyValueStack

    def add_to(self, total: Tensor, hidden: Tensor, query: Tensor) -> Tensor:
        """total + share · term(hidden, S), made anew; all (rows, seq, inner)."""
        if self.fusion == "add" and not isinstance(self.share, Tensor):  # which carries its scale
            return self.attention.add_to(total, query)
        style = self.attention.add_to(torch.zeros_like(hidden), query)
        added = term(self.fusion, hidden, style)
        if isinstance(self.share, Tensor):
            return torch.addcmul(total, added, self.share)
        return total + self.share * added


@dataclass(frozen=True)
class Guided:
    """One unit that is led away from what its unconditional rows see; those rows themselves are left as they are."""

    towards: Fused
    away: Fused  # as if all rows were unconditional
    scale: float

    def add_to(self, total: Tensor, hidden: Tensor, query: Tensor) -> Tensor:
        """total + (guided(H + w T⁺, H + w T⁻) − H), made anew; all (rows, seq, inner)."""
        positive, negative = (unit.add_to(hidden, hidden, query) for unit in (self.towards, self.away))
        return total + (guided(positive, negative, self.scale) - hidden)


@dataclass(frozen=True)
class StyleSum:
    """All units of a layer for one pattern of rows and factors."""

    added: KeyValueStack | None
    fused: tuple[Fused | Guided, ...]

    def add_to(self, hidden: Tensor, query: Tensor) -> Tensor:
        """hidden + Σ_units w · term(hidden, S), made anew; all (rows, seq, inner) and of one dtype."""
        total = hidden if self.added is None else self.added.add_to(hidden, query)
        for unit in self.fused:
            total = unit.add_to(total, hidden, query)
        return total


def style_sum(
    units: Sequence[ImageKeyValue],
    rows: Sequence[bool],
    factors: Sequence[float],
    place: Place | None,
    stacks: Stacks,
    like: Tensor,
) -> StyleSum | KeyValueStack:
    """The units at their scales times `factors`, laid out for `rows` beside `like`; one without factor is left out.

    `place` is where the layer lies, for units with a region.
    """
    acting = [(unit, factor) for unit, factor in zip(units, factors) if factor]
    added = [(unit, factor) for unit, factor in acting if _is_plain(unit)]
    plain = stacks.of([unit for unit, _ in added], rows, like, [factor for _, factor in added]) if added else None
    if plain is not None and len(added) == len(acting):
        return plain

    def fused(unit: ImageKeyValue, factor: float, rows: Sequence[bool] = rows) -> Fused:
        """Attention that is added carries its scale, as ever; with a fusion it is at scale 1, and the term scaled."""
        inside = unit.fusion == "add"
        attention = stacks.of([unit if inside else replace(unit, scale=1.0)], rows, like, [factor if inside else 1.0])
        share = 1.0 if inside else unit.scale * factor
        if unit.region is None or place is None:
            return Fused(unit.fusion, share, attention)
        return Fused(unit.fusion, (share * unit.region.on(place)).to(like), attention)

    def formed(unit: ImageKeyValue, factor: float) -> Fused | Guided:
        towards = fused(unit, factor)
        return Guided(towards, fused(unit, factor, [False] * len(rows)), unit.guidance) if unit.guidance else towards

    return StyleSum(plain, tuple(formed(unit, factor) for unit, factor in acting if not _is_plain(unit)))


def _is_plain(unit: ImageKeyValue) -> bool:
    """Whether the unit's attention is simply added, everywhere."""
    return unit.fusion == "add" and unit.region is None and not unit.guidance
