"""Style from a reference's own self-attention: no adapter, no image encoder, only the UNet that is there.

With q, k, v of a row in an `attn1`, and q_r, k_r, v_r of the reference in the same layer of the same call:

    shared   A(AdaIN(q, q_r), [AdaIN(k, k_r); k_r; k_r], [v; v_r; v_r])     StyleAligned, arXiv:2312.02133; listing the
                                                                            tokens twice is its shift by log 2
    swapped  A(q, k_r, v_r)                                                 Visual Style Prompting, arXiv:2402.12974
    query    A(q_r, k, v)                                                   the guard of StyleKeeper, arXiv:2510.06827

    out = A(q, k, v) + Σ_units scale · (A_unit − A(q, k, v))

One unit at scale 1 needs no second attention: hooks on `to_q`, `to_k` and `to_v` hand the host that unit's q, k and v,
and the host's own attention does the rest. Otherwise the host computes A(q, k, v), and a pre-hook on `to_out[0]` adds
the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ..units.curves import ALWAYS, Curve
from ..units.schedule import Window
from .rows import ModelCall

EPSILON = 1e-5  # under the root of a variance, as StyleAligned has it
QUERY, KEY, VALUE = LEAVES = ("to_q", "to_k", "to_v")
REAL = 2  # times that a real picture's tokens are listed: a shift of its logits by log 2
DRAWN = 1  # those of a picture that is drawn in the same batch

Leaf = Callable[[str, Tensor, Tensor, int], Tensor]  # (leaf, own, reference's, copies) → what the layer computes with


class AllNoted(Exception):
    """All that the job's rows look at is there."""


@dataclass(eq=False)
class ReferenceRows:
    """One reference in the call in progress: its rows run first and are kept, then the job's rows look at them."""

    halves: tuple[bool, ...] = (True,)  # of the rows that are remembered: conditional?
    writing: bool = False  # whether its own rows are in the UNet now
    leads: bool = False  # no rows of its own: the first picture of each half leads the others
    awaited: set[tuple[nn.Module, str]] = field(default_factory=set)  # what is still to be noted: module and what of it

    def rows_for(self, cond_rows: Sequence[bool]) -> list[int]:
        """For each row of the job the remembered row that it looks at: its own half's, or the only one."""
        return [self.halves.index(is_cond) if is_cond in self.halves else 0 for is_cond in cond_rows]

    def noted(self, module: nn.Module, what: str) -> None:
        """Something of its own rows was noted. Raises AllNoted with the last: the rest of the UNet need not run."""
        if self.awaited:
            self.awaited.discard((module, what))
            if not self.awaited:
                raise AllNoted

    def leaders(self, cond_rows: Sequence[bool]) -> list[int]:
        """For each row of the job the row of the first picture of its half."""
        return [list(cond_rows).index(is_cond) for is_cond in cond_rows]


@dataclass(frozen=True, eq=False)
class Attending:
    """How one unit acts in one `attn1`."""

    how: str  # a name of `HOW`
    scale: float
    window: Window
    reference: ReferenceRows
    rows: tuple[bool, ...] = (False, True)  # halves that look at the reference
    curve: Curve = ALWAYS  # a factor on the scale, from step to step

    def factor(self, progress: float) -> float:
        """What the scale is multiplied by in the model call at `progress`; 0 where the unit does not act."""
        return self.curve.at(progress) if self.window.contains(progress) else 0.0


def adain(x: Tensor, like: Tensor) -> Tensor:
    """x with the mean and the deviation of `like`, for each row and channel over the tokens. (rows, tokens, inner)"""
    mean, deviation = _statistics(x)
    new_mean, new_deviation = _statistics(like)
    return (x - mean) / deviation * new_deviation + new_mean


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(1, keepdim=True), (x.var(1, keepdim=True) + EPSILON).sqrt()


def shared(leaf: str, own: Tensor, reference: Tensor, copies: int) -> Tensor:
    """Normalised to the reference (q, k), and followed by its tokens (k, v)."""
    own = own if leaf == VALUE else adain(own, reference)
    return own if leaf == QUERY else torch.cat([own, *[reference] * copies], 1)


def swapped(leaf: str, own: Tensor, reference: Tensor, copies: int) -> Tensor:
    """The reference's keys and values."""
    return own if leaf == QUERY else reference


def query(leaf: str, own: Tensor, reference: Tensor, copies: int) -> Tensor:
    """The reference's query."""
    return reference if leaf == QUERY else own


HOW: dict[str, Leaf] = {"shared": shared, "swapped": swapped, "query": query}
KEPT: dict[str, tuple[str, ...]] = {"shared": LEAVES, "swapped": (KEY, VALUE), "query": (QUERY,)}  # the reference's


@dataclass
class ReferredLayer:
    """One `attn1` whose rows look at references. `attach` and `detach` are a pair; detaching twice is harmless."""

    module: Any  # the attn1
    units: tuple[Attending, ...]
    call: ModelCall
    _own: dict[str, Tensor] = field(default_factory=dict)  # leaf → its output, while it is needed
    _positions: int = 0  # of the query in the call in progress
    _kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # reference → leaf → (halves, tokens, inner)
    _handles: list[RemovableHandle] = field(default_factory=list)

    def attach(self) -> None:
        """Put the hooks in place. Plain functions: other extensions filter hooks by their `__name__`."""
        for leaf in LEAVES:
            self._handles.append(getattr(self.module, leaf).register_forward_hook(self._at(leaf)))

        def instantstyle_blend_references(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            blended = self._blended(args[0])
            return None if blended is None else (blended, *args[1:])

        self._handles.append(self.module.to_out[0].register_forward_pre_hook(instantstyle_blend_references))

    def detach(self) -> None:
        """Take the hooks out and let go of everything."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.forget()

    def forget(self) -> None:
        """Let go of what a call has left."""
        self._own.clear()
        self._kept.clear()

    def _at(self, leaf: str) -> Any:
        def instantstyle_refer(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            return self._leaf(leaf, output)

        return instantstyle_refer

    def _leaf(self, leaf: str, output: Tensor) -> Tensor | None:
        writers = [unit for unit in self.units if unit.reference.writing]
        acting = [] if writers else self.acting()
        if writers or acting:
            self._check_positions(leaf, output)
        if writers:
            for reference in dict.fromkeys(unit.reference for unit in writers if leaf in KEPT[unit.how]):
                self._kept.setdefault(id(reference), {})[leaf] = output
                reference.noted(self.module, leaf)
            return None
        if not acting:
            return None
        self._check(acting, output)
        if self._is_direct(acting):
            if leaf == VALUE:
                self.call.added(self.module)
            return self._seen(acting[0], leaf, output)
        self._own[leaf] = output
        return None

    def acts_at(self, progress: float) -> bool:
        """Whether any unit is to act in the model call at `progress`."""
        return any(unit.factor(progress) for unit in self.units)

    def acting(self) -> list[Attending]:
        """The units that act in the call in progress; none in a call that is not the job's."""
        if self.call.cond_rows is None:
            return []
        return [unit for unit in self.units if unit.factor(self.call.progress)]

    def _check_positions(self, leaf: str, output: Tensor) -> None:
        """Refuse keys and values that another extension has put more of into self-attention than there are queries."""
        if leaf == QUERY:
            self._positions = output.shape[1]
        elif output.shape[1] != self._positions:
            told = f"A self-attention layer was given {output.shape[1]} keys for {self._positions} queries."
            self.call.refuse(
                f"{told} ControlNet's reference units, for one, add their own, and both cannot be had.", self.module
            )

    def _check(self, acting: Sequence[Attending], output: Tensor) -> None:
        """Refuse a call that is not for the rows of the model call, and one without the reference's rows."""
        marks = self.call.cond_rows or ()
        rows = len(marks)
        if len(output) != rows:
            told = f"A self-attention layer was called for {len(output)} rows; the model call has {rows}."
            self.call.refuse(f"{told} Hypertile, for one, cuts rows into tiles.", self.module)
        if all(unit.reference.leads for unit in acting) and set(acting[0].reference.leaders(marks)) >= set(range(rows)):
            self.call.refuse(
                "With no picture given, the first picture of a batch leads the others; this batch has one only. Give a "
                "picture, or raise the batch size.",
            )
        for unit in acting:
            kept = self._kept.get(id(unit.reference), {})
            if not unit.reference.leads and not all(leaf in kept for leaf in KEPT[unit.how]):
                self.call.refuse("A self-attention layer was not computed for the reference.", self.module)

    def _is_direct(self, acting: Sequence[Attending]) -> bool:
        return len(acting) == 1 and acting[0].scale * acting[0].factor(self.call.progress) == 1

    def _seen(self, unit: Attending, leaf: str, own: Tensor) -> Tensor:
        """What the layer computes with in place of `own`, (rows, tokens, inner)."""
        cond_rows, reference = self.call.cond_rows or (), unit.reference
        if leaf not in KEPT[unit.how]:
            return own
        if reference.leads:
            kept, index, copies = own, reference.leaders(cond_rows), DRAWN
        else:
            kept, index, copies = self._kept[id(reference)][leaf], reference.rows_for(cond_rows), REAL
        found = HOW[unit.how](leaf, own, kept[index].to(own), copies)
        if set(cond_rows) <= set(unit.rows):
            return found
        looking = torch.tensor([is_cond in unit.rows for is_cond in cond_rows], device=own.device)
        return torch.where(looking[:, None, None], found, own)

    def _blended(self, hidden: Tensor) -> Tensor | None:
        """hidden + Σ_units scale · (A_unit − hidden); None when the host's own attention has done it all."""
        own, self._own = self._own, {}
        acting = self.acting()
        if not acting or self._is_direct(acting):
            return None
        if len(own) < len(LEAVES):
            self.call.refuse("A self-attention layer was computed in another way.", self.module)
        heads, total = self.module.heads, hidden
        for unit in acting:
            q, k, v = (self._seen(unit, leaf, own[leaf]).unflatten(-1, (heads, -1)).transpose(1, 2) for leaf in LEAVES)
            found = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2).to(hidden)
            total = total + unit.scale * unit.factor(self.call.progress) * (found - hidden)
        self.call.added(self.module)
        return total


@dataclass
class PooledNorm:
    """A GroupNorm whose rows are normalised together with the reference's (StyleAligned): pooled mean and variance.

    Both have as many places, so the pooled moments are the means of the two. Sharing a LayerNorm would change nothing:
    it normalises each token by itself.
    """

    module: Any  # the GroupNorm
    units: tuple[Attending, ...]
    call: ModelCall
    _kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # reference → mean, mean of squares
    _handles: list[RemovableHandle] = field(default_factory=list)

    def attach(self) -> None:
        """Put the hook in place."""

        def instantstyle_pool_statistics(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return self._pooled(args[0], output)

        self._handles.append(self.module.register_forward_hook(instantstyle_pool_statistics))

    def detach(self) -> None:
        """Take the hook out and let go of everything."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.forget()

    def forget(self) -> None:
        """Let go of what a call has left."""
        self._kept.clear()

    def _pooled(self, x: Tensor, output: Tensor) -> Tensor | None:
        if writers := [unit.reference for unit in self.units if unit.reference.writing]:
            for reference in dict.fromkeys(writers):
                self._kept[id(reference)] = self._moments(x)
                reference.noted(self.module, "")
            return None
        if self.call.cond_rows is None:
            return None
        acting = [unit for unit in self.units if unit.factor(self.call.progress)]
        if not acting:
            return None
        self._check(acting, x)
        total = output
        for unit in acting:
            scale = unit.scale * unit.factor(self.call.progress)
            total = total + scale * (self._with(unit.reference, x).to(output) - output)
        self.call.added(self.module)
        return total

    def acts_at(self, progress: float) -> bool:
        """Whether any unit is to act in the model call at `progress`."""
        return any(unit.factor(progress) for unit in self.units)

    def _check(self, acting: Sequence[Attending], x: Tensor) -> None:
        if len(x) % len(self.call.cond_rows or ()):
            told = f"A GroupNorm was called for {len(x)} rows; the model call has {len(self.call.cond_rows or ())}."
            self.call.refuse(told, self.module)
        if not all(unit.reference.leads or id(unit.reference) in self._kept for unit in acting):
            self.call.refuse("A GroupNorm was not computed for the reference.", self.module)

    def _with(self, reference: ReferenceRows, x: Tensor) -> Tensor:
        """x normalised together with the reference's rows."""
        marks = self.call.cond_rows or ()
        cond_rows, own = marks * (len(x) // len(marks)), self._moments(x)
        index = reference.leaders(cond_rows) if reference.leads else reference.rows_for(cond_rows)
        kept = own if reference.leads else self._kept[id(reference)]
        mean, square = ((mine + theirs[index].to(mine)) / 2 for mine, theirs in zip(own, kept))
        grouped = (self._grouped(x) - mean) * torch.rsqrt(square - mean.square() + self.module.eps)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return grouped.view(x.shape) * self.module.weight.view(shape) + self.module.bias.view(shape)

    def _grouped(self, x: Tensor) -> Tensor:
        exact = x.float() if x.element_size() < 4 else x
        return exact.reshape(len(x), self.module.num_groups, -1)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and mean of squares of each row's groups, each (rows, groups, 1)."""
        grouped = self._grouped(x)
        return grouped.mean(-1, keepdim=True), grouped.square().mean(-1, keepdim=True)
