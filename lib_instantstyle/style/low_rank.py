"""A LoRA's pairs, added to single layers of a UNet by forward hooks.

    y = W x + Σ_units scale · (alpha / rank) · up (down x)                       (LoRA, arXiv:2106.09685 §4.1)

The layer's own output is whatever the host computes; the pair's product is added to it, so that taking the hook out
brings the layer back to the last bit. The effect is linear in the scale. (B-LoRA's own
script multiplies both matrices by its weight, which squares it.)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from ..files.adapters import shape_of
from ..units.curves import ALWAYS, Curve
from ..units.schedule import Window
from .rows import ModelCall


@dataclass(frozen=True, eq=False)
class LowRank:
    """One unit's pair for one layer, constant through a job."""

    down: Tensor  # (rank, in)
    up: Tensor  # (out, rank), carries scale · alpha / rank
    window: Window
    curve: Curve = ALWAYS  # a factor on the scale, from step to step

    def factor(self, progress: float) -> float:
        """What the scale is multiplied by in the model call at `progress`; 0 where the unit does not act."""
        return self.curve.at(progress) if self.window.contains(progress) else 0.0

    def beside(self, like: Tensor) -> LowRank:
        """The same on the device and in the dtype of `like`."""
        return replace(self, down=self.down.to(like), up=self.up.to(like))

    def fits(self, like: Tensor) -> bool:
        """Whether it lies where `like` does, in the same numbers."""
        return self.down.device == like.device and self.down.dtype == like.dtype

    def product(self, x: Tensor) -> Tensor:
        """scale · up (down x): (…, in) → (…, out)."""
        return functional.linear(functional.linear(x.to(self.down), self.down), self.up)


@dataclass
class AdaptedLayer:
    """One linear layer with the pairs routed to it. `attach` and `detach` are a pair; detaching twice is harmless."""

    module: nn.Module
    units: tuple[LowRank, ...]
    call: ModelCall
    _handles: list[RemovableHandle] = field(default_factory=list)
    _placed: tuple[LowRank, ...] = ()  # the pairs where, and in the numbers in which, the layer computes

    def attach(self) -> None:
        """Put the hook in place. A plain function: other extensions filter hooks by their `__name__`."""

        def instantstyle_add_low_rank(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return self._added(args[0], output)

        self._handles.append(self.module.register_forward_hook(instantstyle_add_low_rank))

    def detach(self) -> None:
        """Take the hook out and let go of everything."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._placed = [], ()

    def acts_at(self, progress: float) -> bool:
        """Whether any pair is to be added in the model call at `progress`."""
        return any(pair.factor(progress) for pair in self.units)

    def _added(self, x: Tensor, output: Tensor) -> Tensor | None:
        if self.call.cond_rows is None:  # not a call of the job's
            return None
        factors = [pair.factor(self.call.progress) for pair in self.units]
        if not any(factors):
            return None
        for pair, factor in zip(self._beside(output), factors):
            if factor:
                output = output + factor * pair.product(x)
        self.call.added(self.module)
        return output

    def _beside(self, output: Tensor) -> tuple[LowRank, ...]:
        """The pairs where the layer computes; moved there once a job."""
        if not self._placed or not self._placed[0].fits(output):
            self._placed = tuple(pair.beside(output) for pair in self.units)
        return self._placed


def linear_widths(module: Any) -> tuple[int, int]:
    """(out, in) of a linear layer, also of one whose weight is stored packed."""
    if hasattr(module, "out_features") and hasattr(module, "in_features"):
        return int(module.out_features), int(module.in_features)
    out, width = shape_of(module.weight)[:2]
    return int(out), int(width)
