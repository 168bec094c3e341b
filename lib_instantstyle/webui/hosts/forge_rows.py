"""Forge and its kin: rows are told apart by a mark that travels in each condition, as the text does.

These WebUIs build a batch out of condition objects: they ask each for its rows, join those of conditions that fit into
one call, and hand the result to the UNet by its name. So a conditioning modifier puts a mark among them, and a hook on
the UNet takes it out again. What they say of a batch themselves, `cond_or_uncond`, is not enough: self-attention
guidance gives the negative prompt in the place of the prompt, and tilers repeat the batch
(docs/decisions/0002-row-marks.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .webui_host import ROW_MARK, ReadCall

MODIFIERS = "conditioning_modifiers"  # in a patcher's model_options


class RowMarks:
    """A condition that is 1 or 0 for each of its rows, and fits to any other of its kind.

    The numbers stay on the CPU, so that reading them waits for no GPU; being whole, they are not cast to the UNet's.
    """

    def __init__(self, marks: Tensor) -> None:
        self.cond = marks  # (rows, 1)

    def process_cond(self, batch_size: int, device: object = None, **_: object) -> RowMarks:
        """As many rows as there are pictures."""
        return RowMarks(self.cond[:1].repeat(batch_size, 1))

    def can_concat(self, other: RowMarks) -> bool:
        return True

    def concat(self, others: Sequence[RowMarks]) -> Tensor:
        return torch.cat([self.cond, *(other.cond for other in others)])

    def size(self) -> list[int]:
        return list(self.cond.shape)


def instantstyle_mark_rows(model: Any, x: Any, timestep: Any, uncond: Any, cond: Any, *others: Any) -> tuple[Any, ...]:
    """The conditioning modifier. A patcher's clones copy it in depth, so it is a plain function and holds nothing."""
    if _is_watched(model.diffusion_model):  # else nobody would take the marks out again
        for conditions, mark in ((cond, 1), (uncond, 0)):
            for condition in conditions or ():
                condition["model_conds"][ROW_MARK] = RowMarks(torch.tensor([[mark]], dtype=torch.int32))
    return (model, x, timestep, uncond, cond, *others)


def marking(patcher: Any) -> Any:
    """The patcher itself if it marks rows already, or a clone that does."""
    if instantstyle_mark_rows in patcher.model_options.get(MODIFIERS, ()):
        return patcher
    marked = patcher.clone()
    marked.add_conditioning_modifier(instantstyle_mark_rows)
    return marked


def watch(unet: nn.Module, read: ReadCall) -> RemovableHandle:
    """Take the marks out of each call of the UNet, and tell them."""

    def instantstyle_read_rows(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        read(kwargs.get(ROW_MARK), args[0])
        return args, {name: value for name, value in kwargs.items() if name != ROW_MARK}

    return unet.register_forward_pre_hook(instantstyle_read_rows, with_kwargs=True, prepend=True)


def _is_watched(unet: nn.Module) -> bool:
    return any(hook.__name__ == "instantstyle_read_rows" for hook in unet._forward_pre_hooks.values())
