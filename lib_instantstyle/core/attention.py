"""Decoupled cross-attention, added to a UNet's `attn2` by hooks on its leaves.

    out = softmax(q Kᵀ/√d) V + Σ_units scale · softmax(q K_ipᵀ/√d) V_ip        (IP-Adapter, arXiv:2308.06721 eq. 5)

The first term is whatever the host computes, with whatever optimisation. A forward hook on `to_q` keeps q, a forward
pre-hook on `to_out[0]` adds the second term; nothing's `forward` is replaced, so removal is exact
(docs/decisions/0001-leaf-hooks.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from .schedule import Window

KEPT_STACKS = 8  # row patterns of one layer whose keys and values stay stacked; a job has one or two


@dataclass
class ModelCall:
    """The UNet call in progress, as the host tells it. Layers read it, the host writes it."""

    cond_rows: tuple[bool, ...] | None = None  # for each row of the batch: conditional? None: not ours, add nothing
    progress: float = 0.0  # 0..1 of the sampling pass
    styled: int = 0  # how often a layer added style since the hooks were attached


@dataclass(frozen=True, eq=False)
class ImageKeyValue:
    """Keys and values of one unit in one layer, constant through a job."""

    key: Tensor  # (2, tokens, inner): row 0 for unconditional rows, row 1 for conditional ones
    value: Tensor  # likewise
    scale: float
    window: Window


def grouped_softmax(logits: Tensor, lengths: Sequence[int]) -> Tensor:
    """Softmax over the last dimension, separately within each group of `lengths`; computed in float32."""
    if len(set(lengths)) == 1:
        groups = logits.unflatten(-1, (len(lengths), -1))
        return groups.softmax(-1, dtype=torch.float32).flatten(-2).to(logits.dtype)
    parts = [part.softmax(-1, dtype=torch.float32) for part in logits.split(list(lengths), -1)]
    return torch.cat(parts, -1).to(logits.dtype)


@dataclass(frozen=True)
class KeyValueStack:
    """All units of a layer for one pattern of rows: one matrix product serves them all."""

    key: Tensor  # (rows, heads, tokens of all units, head_dim); of several units it carries 1/√d
    value: Tensor  # (rows, heads, tokens of all units, head_dim), carries each unit's scale
    lengths: tuple[int, ...]  # tokens of each unit

    def attend(self, query: Tensor) -> Tensor:
        """query (rows, seq, inner) → Σ_units scale · softmax(q K_ipᵀ/√d) V_ip, (rows, seq, heads, head_dim)."""
        heads = query.unflatten(-1, (self.value.shape[1], -1)).transpose(1, 2)  # (rows, heads, seq, head_dim)
        style = self._of_one(heads) if len(self.lengths) == 1 else self._of_several(heads)
        return style.transpose(1, 2)

    def _of_one(self, heads: Tensor) -> Tensor:
        """One kernel that copies neither q nor the weights."""
        return functional.scaled_dot_product_attention(heads, self.key, self.value)

    def _of_several(self, heads: Tensor) -> Tensor:
        weights = grouped_softmax(heads @ self.key.transpose(-1, -2), self.lengths)  # (rows, heads, seq, tokens)
        return weights @ self.value


def lay_out(key: Tensor, value: Tensor, heads: int, lengths: tuple[int, ...]) -> KeyValueStack:
    """Keys and values of every row, each (rows, tokens of all units, inner), ready for queries; differentiable."""
    key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (key, value))
    if len(lengths) > 1:
        key = key / math.sqrt(key.shape[-1])
    return KeyValueStack(key, value, lengths)


def stack(units: Sequence[ImageKeyValue], rows: Sequence[bool], heads: int, like: Tensor) -> KeyValueStack:
    """Lay the units' keys and values out for `rows`, on the device and in the dtype of `like`."""
    index = torch.tensor([int(is_cond) for is_cond in rows])
    key = torch.cat([unit.key for unit in units], 1)[index]
    scaled = torch.cat([unit.value * unit.scale for unit in units], 1)[index]
    laid = lay_out(key, scaled, heads, tuple(unit.key.shape[1] for unit in units))
    return KeyValueStack(laid.key.to(like).contiguous(), laid.value.to(like).contiguous(), laid.lengths)


def added(hidden: Tensor, style: Tensor) -> Tensor:
    """hidden (rows, seq, inner) + style (rows, seq, heads, head_dim), whose heads are put in place by the addition."""
    return (hidden.unflatten(-1, style.shape[-2:]) + style.to(hidden.dtype)).flatten(-2)


@dataclass
class StyledLayer:
    """One `attn2` with the units routed to it. `attach` and `detach` are a pair; detaching twice is harmless."""

    attn2: Any
    units: tuple[ImageKeyValue, ...]
    call: ModelCall
    _query: Tensor | None = None
    _stacks: dict[tuple[Any, ...], KeyValueStack] = field(default_factory=dict)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def attach(self) -> None:
        """Put the two hooks in place. Plain functions: other extensions filter hooks by their `__name__`."""

        def instantstyle_keep_query(module: nn.Module, args: Any, output: Tensor) -> None:
            self._query = output

        def instantstyle_add_style(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            query, self._query = self._query, None
            style = None if query is None else self.style(query)
            return None if style is None else (added(args[0], style), *args[1:])

        self._handles.append(self.attn2.to_q.register_forward_hook(instantstyle_keep_query))
        self._handles.append(self.attn2.to_out[0].register_forward_pre_hook(instantstyle_add_style))

    def detach(self) -> None:
        """Take the hooks out and let go of everything."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._query = [], None
        self._stacks.clear()

    def style(self, query: Tensor) -> Tensor | None:
        """query (rows, seq, inner) → what this layer adds in the call in progress, (rows, seq, heads, head_dim); None
        when no unit acts now."""
        rows = rows_of(self.call.cond_rows, query.shape[0])
        active = tuple(unit.window.contains(self.call.progress) for unit in self.units)
        if rows is None or not any(active):
            return None
        self.call.styled += 1
        return self._stack(rows, active, query).attend(query)

    def _stack(self, rows: tuple[bool, ...], active: tuple[bool, ...], query: Tensor) -> KeyValueStack:
        pattern = (rows, active, query.dtype, query.device)
        if pattern not in self._stacks:
            if len(self._stacks) >= KEPT_STACKS:
                self._stacks.clear()
            units = [unit for unit, acts in zip(self.units, active) if acts]
            self._stacks[pattern] = stack(units, rows, self.attn2.heads, query)
        return self._stacks[pattern]


def rows_of(marks: tuple[bool, ...] | None, batch: int) -> tuple[bool, ...] | None:
    """The marks of a batch of rows. Tiling extensions repeat the whole batch: then the marks repeat too.

    None when there are no marks or they do not divide the batch: nothing is guessed.
    """
    if not marks or batch % len(marks):
        return None
    return marks * (batch // len(marks))
