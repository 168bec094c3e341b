"""Which rows of a UNet call an attention layer is called for.

Most layers get the whole batch. NegPiP and Regional Prompter call a layer's attention once for the conditional rows and
once for the others, in either order and some rows several times (docs/decisions/0009-rows-in-parts.md). A part is told
by what it shows of the layer's input. One that shows nothing, because it is a copy, follows the part before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn
from weakref import WeakSet

from torch import Tensor, nn

from ..units.errors import InstantStyleError, StyleNotAppliedError
from .fusions import grid_of
from .regions import WHOLE, Part, Place

WAY_OUT = "Switch off either the extension that does this or InstantStyle."


def unchanged(error: InstantStyleError) -> Exception:
    """An error as it is."""
    return error


def never(progress: float) -> bool:
    """No unit acts."""
    return False


@dataclass
class ModelCall:
    """The UNet call in progress. The host tells of it, layers read it.

    For each sampling pass `start`, `begin` at every UNet call, then `end`. The first thing that does not add up raises
    where it happens. Should somebody swallow that, every later `begin` and `end` raises it again.
    """

    cond_rows: tuple[bool, ...] | None = None  # for each row of the batch: conditional? None: not ours, add nothing
    progress: float = 0.0  # 0..1 of the sampling pass; written before `begin`
    is_due: Callable[[float], bool] = never  # whether some unit acts at a progress; the session writes it
    as_raised: Callable[[InstantStyleError], Exception] = unchanged  # inside a UNet call: what ends the host's job
    due: int = 0  # UNet calls of this pass in which some unit acts
    # Layers that add the same to all rows, each with whether it does at a progress; the session writes them.
    adapted: Mapping[nn.Module, Callable[[float], bool]] = field(default_factory=dict)
    styled: int = 0  # layer calls of this pass that added style
    fault: InstantStyleError | None = None  # the first thing in this pass that did not add up
    size: tuple[int, int] | None = None  # height and width of what the UNet is given, in the call in progress
    whole: tuple[int, int] | None = None  # those of the picture that is drawn, where the host knows; else any size is
    part: Part = WHOLE  # of the picture that regions are laid over: what this pass draws of it
    _served: dict[nn.Module, int] = field(default_factory=dict)  # rows of layers that are called for parts
    _awaited: WeakSet[nn.Module] = field(default_factory=WeakSet)  # of `adapted`, that were due in this pass
    _added: WeakSet[nn.Module] = field(default_factory=WeakSet)  # of `adapted`, that were computed; keeps none alive

    def start(self) -> None:
        """A sampling pass begins: forget the one before."""
        self.cond_rows, self.fault = None, None
        self.due = self.styled = 0
        self._served.clear()
        self._awaited.clear()
        self._added.clear()

    def begin(self, marks: Sequence[bool] | None, batch: int, size: tuple[int, int] | None = None) -> None:
        """A UNet call with `batch` rows begins. `marks` says which are conditional; over a tiled batch it repeats.
        `size` is the height and width of each row.

        None when the call is not ours. Raises StyleNotAppliedError, as the host wants it, when the call before was not
        completed or the marks do not divide the batch.
        """
        self.idle()
        if self.fault:
            raise self.as_raised(self.fault)
        if marks is None:
            return
        if not marks or batch % len(marks):
            self.refuse(f"A model call had {batch} rows, but marks for {len(marks)}: something changed the batch.")
        self.cond_rows, self.size = tuple(marks) * (batch // len(marks)), size
        self.due += self.is_due(self.progress)
        self._awaited.update(layer for layer, acts_at in self.adapted.items() if acts_at(self.progress))

    def added(self, layer: nn.Module) -> None:
        """A layer of `adapted` has added to all rows that it was called for."""
        self.styled += 1
        self._added.add(layer)

    def idle(self) -> None:
        """No UNet call of ours is in progress. Notes a fault when the last one was not completed."""
        rows, self.cond_rows = self.cond_rows, None
        left = [(layer, served) for layer, served in self._served.items() if rows and served < len(rows)]
        self._served.clear()
        if left and rows and not self.fault:
            layer, served = left[0]
            self.fault = _fault(f"An attention layer was called for only {served} of {len(rows)} rows.", layer)

    def end(self) -> None:
        """The sampling pass is over. Raises StyleNotAppliedError when some of it, or all, went without style."""
        self.idle()
        if self.fault:
            raise self.fault
        if self.due and not self.styled:
            raise StyleNotAppliedError(
                f"The style did not reach the UNet in any of {self.due} model calls: something has replaced its "
                f"attention. {WAY_OUT}"
            )
        if missed := self._awaited - self._added:
            told = f"{len(missed)} of {len(self._awaited)} layers were computed without what is added to them."
            raise _fault(told, next(iter(missed)))

    def place(self, positions: int, layer: nn.Module) -> Place:
        """Where a layer's positions lie in the picture. Raises StyleNotAppliedError when that is not clear."""
        if self.size is None or self.size != (self.whole or self.size):
            told = f"The UNet was given {_by(self.size)} of a picture of {_by(self.whole)}"
            self.refuse(f"{told}, and nothing tells where a region lies in it.")
        grid = grid_of(positions, self.size)
        if grid is None:
            self.refuse(f"An attention layer has {positions} positions, no grid of {_by(self.size)}.", layer)
        return Place(grid, self.part)

    def next_rows(self, layer: nn.Module, count: int) -> range:
        """The rows that a layer called for `count` of them gets: all, or those that follow the part before."""
        total = len(self.cond_rows or ())
        if count == total:
            return range(total)
        first = self._served.get(layer, 0)
        if first + count > total:
            told = f" after {first}" if first else ""
            self.refuse(f"An attention layer was called for {count} rows{told}; the model call has {total}.", layer)
        self._served[layer] = first + count
        return range(first, first + count)

    def refuse(self, message: str, layer: nn.Module | None = None) -> NoReturn:
        """End the host's job: some due layer call cannot be styled."""
        self.cond_rows = None
        self._served.clear()
        self.fault = _fault(message, layer)
        raise self.as_raised(self.fault)


def _by(size: tuple[int, int] | None) -> str:
    return f"{size[1]}×{size[0]}" if size else "unknown size"


def _fault(message: str, layer: nn.Module | None) -> StyleNotAppliedError:
    """Says who computes the layer: extensions replace its `forward`, and diffusers gives it a processor."""
    computes = getattr(layer, "processor", None) or getattr(layer, "forward", None)
    owner = getattr(computes, "__module__", None)
    told = f" It is computed by {owner}." if owner else ""
    return StyleNotAppliedError(f"{message}{told} {WAY_OUT}")


@dataclass
class LayerRows:
    """One call of a layer: the rows that it was given, and which of them have been served."""

    whole: Tensor  # (rows, seq, width): what the layer was given
    rows: range  # of the UNet call, that `whole` holds
    served: set[int] = field(default_factory=set)  # rows of `whole`

    def take(self, part: Tensor | None, count: int) -> range | None:
        """The rows of the UNet call that a part of `count` rows holds, or None when nothing tells."""
        found = range(count) if count == len(self.whole) else self._shown(part) or self._following(count)
        if found is None:
            return None
        self.served.update(found)
        return self.rows[found.start :: found.step][:count]

    def _shown(self, part: Tensor | None) -> range | None:
        return None if part is None else rows_shown(part, self.whole)

    def _following(self, count: int) -> range | None:
        """The part is a copy: it follows the one before, if the rows served so far are the first ones."""
        first = len(self.served)
        fits = self.served <= set(range(first)) and first + count <= len(self.whole)
        return range(first, first + count) if fits else None

    @property
    def is_complete(self) -> bool:
        return len(self.served) == len(self.whole)


def rows_shown(part: Tensor, whole: Tensor) -> range | None:
    """The rows of `whole` that `part` is a view of, both (rows, seq, width); None when it is no view of whole rows."""
    size = whole.stride(0)
    if part.shape[1:] != whole.shape[1:] or part.stride()[1:] != whole.stride()[1:] or part.dtype != whole.dtype:
        return None
    if not size or not len(part):
        return None
    first, beside = divmod(part.data_ptr() - whole.data_ptr(), size * whole.element_size())
    step, between = divmod(part.stride(0), size) if len(part) > 1 else (1, 0)
    inside = first >= 0 and first + step * (len(part) - 1) < len(whole)
    if beside or between or not step or not inside or part.device != whole.device:
        return None
    return range(first, first + step * len(part), step)
