"""The sum of all units in one layer: those that are simply added in one go, the others one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .fusions import term
from .key_values import ImageKeyValue, KeyValueStack, stack


@dataclass(frozen=True)
class Fused:
    """One unit whose attention joins the text's in another way than by being added."""

    fusion: str
    weight: float
    attention: KeyValueStack  # at scale 1


@dataclass(frozen=True)
class StyleSum:
    """All units of a layer for one pattern of rows and factors."""

    added: KeyValueStack | None
    fused: tuple[Fused, ...]

    def add_to(self, hidden: Tensor, query: Tensor) -> Tensor:
        """hidden + Σ_units w · term(hidden, S), made anew; all (rows, seq, inner) and of one dtype."""
        total = hidden if self.added is None else self.added.add_to(hidden, query)
        for unit in self.fused:
            style = unit.attention.add_to(torch.zeros_like(hidden), query)
            total = total + unit.weight * term(unit.fusion, hidden, style)
        return total


def style_sum(
    units: Sequence[ImageKeyValue], factors: Sequence[float], rows: Sequence[bool], heads: int, like: Tensor
) -> StyleSum | KeyValueStack:
    """The units at their scales times `factors`, laid out for `rows` beside `like`; one without factor is left out."""
    acting = [(unit, factor) for unit, factor in zip(units, factors) if factor]
    added = [(unit, factor) for unit, factor in acting if unit.fusion == "add"]
    plain = stack([unit for unit, _ in added], rows, heads, like, [factor for _, factor in added]) if added else None
    if plain is not None and len(added) == len(acting):
        return plain
    fused = (
        Fused(unit.fusion, unit.scale * factor, stack([replace(unit, scale=1.0)], rows, heads, like))
        for unit, factor in acting
        if unit.fusion != "add"
    )
    return StyleSum(plain, tuple(fused))
