"""Decoupled cross-attention, added to a UNet's `attn2` by hooks on its leaves.

    out = softmax(q Kᵀ/√d) V + Σ_units scale · softmax(q K_ipᵀ/√d) V_ip        (IP-Adapter, arXiv:2308.06721 eq. 5)

The first term is whatever the host computes, with whatever optimisation. A forward hook on `to_q` keeps q, a forward
pre-hook on `to_out[0]` adds the second term; a pair on `attn2` itself sees which rows it is given, and that all of them
are served. Nothing's `forward` is replaced, so removal is exact (docs/decisions/0001-leaf-hooks.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .key_values import ImageKeyValue, KeyValueStack
from .regions import Place
from .rows import LayerRows, ModelCall
from .sums import KEPT_STACKS, Stacks, StyleSum, style_sum

Wanted = tuple[tuple[bool, ...], tuple[float, ...], Place | None]  # rows, factors of the units, where it lies


@dataclass
class StyledLayer:
    """One `attn2` with the units routed to it. `attach` and `detach` are a pair; detaching twice is harmless."""

    attn2: Any
    units: tuple[ImageKeyValue, ...]
    call: ModelCall
    _given: LayerRows | None = None  # in the call of attn2 in progress; some host may call its leaves only
    _part: Tensor | None = None  # what to_q was given
    _query: Tensor | None = None  # what it made of that
    _stacks: dict[tuple[Any, ...], KeyValueStack | StyleSum] = field(default_factory=dict)
    _laid: Stacks = field(init=False)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._laid = Stacks(self.attn2.heads)  # what all row patterns and factors are made of

    def attach(self) -> None:
        """Put the hooks in place. Plain functions: other extensions filter hooks by their `__name__`."""

        def instantstyle_see_rows(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._open(args[0] if args else None)

        def instantstyle_keep_query(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._part, self._query = args[0] if args else None, output

        def instantstyle_add_style(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            styled = self._styled(args[0])
            return None if styled is None else (styled, *args[1:])

        def instantstyle_check_rows(module: nn.Module, args: Any, output: Any) -> None:
            self._close()

        self._handles.append(self.attn2.register_forward_pre_hook(instantstyle_see_rows))
        self._handles.append(self.attn2.to_q.register_forward_hook(instantstyle_keep_query))
        self._handles.append(self.attn2.to_out[0].register_forward_pre_hook(instantstyle_add_style))
        self._handles.append(self.attn2.register_forward_hook(instantstyle_check_rows))

    def detach(self) -> None:
        """Take the hooks out and let go of everything."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._given, self._part, self._query = [], None, None, None
        self._stacks.clear()
        self._laid.clear()

    def acting(self, query: Tensor) -> KeyValueStack | StyleSum | None:
        """The keys and values that query (rows, seq, inner) attends to in the call in progress; None when no unit acts
        now. Raises StyleNotAppliedError when it is not clear which rows of the call these are."""
        factors = self._factors()
        if not any(factors) or not len(query):
            return None
        marks = self.call.cond_rows or ()
        rows = tuple(marks[row] for row in self._rows(len(query)))
        place = self.call.place(query.shape[1], self.attn2) if self._has_region else None
        self.call.styled += 1
        return self._sum((rows, factors, place), query)

    @property
    def _has_region(self) -> bool:
        return any(unit.region for unit in self.units)

    def _factors(self) -> tuple[float, ...]:
        """For each unit the factor on its scale in the call in progress; nothing acts in a call that is not ours."""
        if self.call.cond_rows is None:
            return ()
        return tuple(unit.factor(self.call.progress) for unit in self.units)

    def _open(self, whole: Tensor | None) -> None:
        """attn2 is called for `whole` (rows, seq, width)."""
        self._given = self._query = None
        if whole is not None and any(self._factors()):
            self._given = LayerRows(whole, self.call.next_rows(self.attn2, len(whole)))

    def _close(self) -> None:
        """attn2 has been called. Raises StyleNotAppliedError when some row that it was given went without style."""
        given, self._given = self._given, None
        if given is not None and not given.is_complete:
            told = f"{len(given.served)} of the {len(given.whole)} rows it was given went through its to_q and to_out."
            self.call.refuse(f"An attention layer was computed in an unexpected way: {told}", self.attn2)

    def _rows(self, count: int) -> range:
        """Which rows of the UNet call the `count` rows are that to_q was called for."""
        if self._given is None:
            return self.call.next_rows(self.attn2, count)
        rows = self._given.take(self._part, count)
        if rows is None:
            given = f"{count} of the {len(self._given.whole)} rows it was given"
            self.call.refuse(f"An attention layer was called for {given}, and it is not clear for which.", self.attn2)
        return rows

    def _styled(self, hidden: Tensor) -> Tensor | None:
        """What to_out is to get in place of `hidden` (rows, seq, inner); None when no unit acts now."""
        query, self._query = self._query, None
        if query is None or query.shape != hidden.shape:
            self._refuse_unmatched(query, hidden)
            return None
        query = query.to(hidden)
        acting, self._part = self.acting(query), None
        return None if acting is None else acting.add_to(hidden, query)

    def _refuse_unmatched(self, query: Tensor | None, hidden: Tensor) -> None:
        if any(self._factors()):
            told = "nothing" if query is None else f"{tuple(query.shape)}"
            shapes = f"its to_q gave {told}, and its to_out got {tuple(hidden.shape)}."
            self.call.refuse(f"An attention layer was computed in an unexpected way: {shapes}", self.attn2)

    def _sum(self, wanted: Wanted, query: Tensor) -> KeyValueStack | StyleSum:
        pattern = (*wanted, query.dtype, query.device)
        if pattern not in self._stacks:
            if len(self._stacks) >= KEPT_STACKS:
                self._stacks.clear()
            self._stacks[pattern] = style_sum(self.units, *wanted, self._laid, query)
        return self._stacks[pattern]
