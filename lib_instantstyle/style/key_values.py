"""Keys and values of image prompts, and the attention to them: the second term of decoupled cross-attention.

    out + Σ_units scale · softmax(q K_ipᵀ/√d) V_ip        (IP-Adapter, arXiv:2308.06721 eq. 5)

The value carries the scale and the key 1/√d, once for a job. What is left moves memory more than it computes, so the
sum is formed with as few passes over it as there can be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from ..units.curves import ALWAYS, Curve
from ..units.schedule import Window
from .kv_scaling import SCALINGS
from .regions import Region

WRITE_THROUGH_VIEWS = ("cpu", "cuda")  # on others a product may be written to a copy that nobody sees, as on MPS
FEW_TOKENS = 32  # of a unit; above, a fused attention is faster (measured on CPUs with 4 to 257 tokens, 1 to 8 units)


@dataclass(frozen=True, eq=False)
class ImageKeyValue:
    """Keys and values of one unit in one layer, constant through a job."""

    key: Tensor  # (2, tokens, inner): row 0 for unconditional rows, row 1 for conditional ones
    value: Tensor  # likewise
    scale: float
    window: Window
    curve: Curve = ALWAYS  # a factor on the scale, from step to step
    scaling: str = "v"  # a name of `kv_scaling.SCALINGS`
    fusion: str = "add"  # see `fusions`
    region: Region | None = None  # where it acts; None: everywhere
    guidance: float = 0.0  # away from what unconditional rows see, inside the layer: see `fusions.guided`

    def factor(self, progress: float) -> float:
        """What the scale is multiplied by in the model call at `progress`; 0 where the unit does not act."""
        return self.curve.at(progress) if self.window.contains(progress) else 0.0

    def pushing(self, scale: float) -> ImageKeyValue:
        """The same turned round: unconditional rows see the reference, conditional rows nothing.

        Guidance then pushes away from it, as ComfyUI_IPAdapter_plus's precise weights do. Nothing means values of
        zero: attention to them gives exactly 0.
        """
        key, value = self.key[1], self.value[1]
        return replace(
            self,
            key=torch.stack([key, key]),
            value=torch.stack([value, torch.zeros_like(value)]),
            scale=scale,
            fusion="add",
        )

    def scaled(self, factor: float) -> tuple[Tensor, Tensor]:
        """Key and value at scale × factor, each (2, tokens, inner)."""
        return SCALINGS[self.scaling](self.key, self.value, self.scale * factor)


@dataclass(frozen=True)
class KeyValueStack:
    """All units of a layer for one pattern of rows."""

    key: Tensor  # (rows, heads, tokens of all units, head_dim), carries 1/√d
    value: Tensor  # (rows, heads, tokens of all units, head_dim), carries each unit's scale
    lengths: tuple[int, ...]  # tokens of each unit

    def add_to(self, hidden: Tensor, query: Tensor) -> Tensor:
        """hidden + Σ_units scale · softmax(q K_ipᵀ/√d) V_ip, made anew; differentiable.

        All (rows, seq, inner) and of one dtype; `hidden` is what attention to the text gave, and stays as it is.
        """
        queries = self._in_heads(query)
        return self._by_products(hidden, queries) if self._is_small else self._by_attention(hidden, queries)

    def weighted(self, factors: Sequence[float]) -> KeyValueStack:
        """The same with each unit's values multiplied by its factor."""
        if all(factor == 1.0 for factor in factors):
            return self
        parts = [value * factor for value, factor in zip(self.value.split(self.lengths, 2), factors)]
        return KeyValueStack(self.key, torch.cat(parts, 2) if len(parts) > 1 else parts[0], self.lengths)

    @cached_property
    def _units(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Key and value of each unit."""
        return tuple(zip(self.key.split(self.lengths, 2), self.value.split(self.lengths, 2)))

    @cached_property
    def _is_small(self) -> bool:
        """Half precision is left to the fused attention, whose logits are float32: they cannot overflow."""
        exact = self.key.element_size() >= 4 and self.key.device.type in WRITE_THROUGH_VIEWS
        return exact and max(self.lengths) <= FEW_TOKENS

    def _by_products(self, hidden: Tensor, queries: Tensor) -> Tensor:
        """Two products a row serve all units; the second one adds its result to the sum, in place."""
        total = hidden.clone()
        for row in range(len(total)):
            weights = grouped_softmax(torch.bmm(self.key[row], queries[row].transpose(-1, -2)), self.lengths)
            self._in_heads(total)[row].baddbmm_(weights.transpose(-1, -2).to(total), self.value[row])
        return total

    def _by_attention(self, hidden: Tensor, queries: Tensor) -> Tensor:
        """One fused attention a unit, which never holds the weights; its result takes up the sum so far."""
        total = self._in_heads(hidden)
        for key, value in self._units:
            style = functional.scaled_dot_product_attention(queries, key, value, scale=1.0)
            total = total + style if style.requires_grad else style.to(hidden).add_(total)
        return total.transpose(1, 2).flatten(-2)

    def _in_heads(self, x: Tensor) -> Tensor:
        """(rows, seq, inner) → a view (rows, heads, seq, head_dim)."""
        return x.unflatten(-1, (self.key.shape[1], -1)).transpose(1, 2)


def grouped_softmax(logits: Tensor, lengths: Sequence[int]) -> Tensor:
    """Softmax over dimension -2, separately within each group of `lengths`."""
    if len(set(lengths)) == 1:
        return logits.unflatten(-2, (len(lengths), -1)).softmax(-2).flatten(-3, -2)
    return torch.cat([part.softmax(-2) for part in logits.split(list(lengths), -2)], -2)


def lay_out(key: Tensor, value: Tensor, heads: int, lengths: tuple[int, ...]) -> KeyValueStack:
    """Keys and values of every row, each (rows, tokens of all units, inner), ready for queries; differentiable."""
    key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (key, value))
    return KeyValueStack(key / math.sqrt(key.shape[-1]), value, lengths)


def stack(
    units: Sequence[ImageKeyValue], rows: Sequence[bool], heads: int, like: Tensor, factors: Sequence[float] = ()
) -> KeyValueStack:
    """Lay the units' keys and values out for `rows`, on the device and in the dtype of `like`.

    `factors`: on each unit's scale, 1 if not given.
    CUDA takes a copy's source along before it returns, so nobody waits for what the GPU still computes.
    """
    index = torch.tensor([int(is_cond) for is_cond in rows])
    pairs = [unit.scaled(factor) for unit, factor in zip(units, factors or [1.0] * len(units))]
    key, value = (torch.cat(many, 1)[index] for many in zip(*pairs))
    laid = lay_out(key, value, heads, tuple(unit.key.shape[1] for unit in units))
    key, value = (x.contiguous().to(like, non_blocking=like.is_cuda) for x in (laid.key, laid.value))
    return KeyValueStack(key, value, laid.lengths)
