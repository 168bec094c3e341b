"""Decoupled cross-attention, added to a UNet's `attn2` by hooks on its leaves.

    out = softmax(q Kᵀ/√d) V + Σ_units scale · softmax(q K_ipᵀ/√d) V_ip        (IP-Adapter, arXiv:2308.06721 eq. 5)

The first term is whatever the host computes, with whatever optimisation. A forward hook on `to_q` keeps q, a forward
pre-hook on `to_out[0]` adds the second term; nothing's `forward` is replaced, so removal is exact
(docs/decisions/0001-leaf-hooks.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .key_values import ImageKeyValue, KeyValueStack, stack

KEPT_STACKS = 8  # row patterns of one layer whose keys and values stay stacked; a job has one or two


@dataclass
class ModelCall:
    """The UNet call in progress, as the host tells it. Layers read it, the host writes it."""

    cond_rows: tuple[bool, ...] | None = None  # for each row of the batch: conditional? None: not ours, add nothing
    progress: float = 0.0  # 0..1 of the sampling pass
    styled: int = 0  # how often a layer added style since the hooks were attached


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
            if query is None:
                return None
            hidden, query = args[0], query.to(args[0])
            acting = self.acting(query)
            return None if acting is None else (acting.add_to(hidden, query), *args[1:])

        self._handles.append(self.attn2.to_q.register_forward_hook(instantstyle_keep_query))
        self._handles.append(self.attn2.to_out[0].register_forward_pre_hook(instantstyle_add_style))

    def detach(self) -> None:
        """Take the hooks out and let go of everything."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._query = [], None
        self._stacks.clear()

    def acting(self, query: Tensor) -> KeyValueStack | None:
        """The keys and values that query (rows, seq, inner) attends to in the call in progress; None when no unit acts
        now."""
        rows = rows_of(self.call.cond_rows, query.shape[0])
        active = tuple(unit.window.contains(self.call.progress) for unit in self.units)
        if rows is None or not any(active):
            return None
        self.call.styled += 1
        return self._stack(rows, active, query)

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
