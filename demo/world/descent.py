"""How everything in the world is trained: AdamW through one cycle of the learning rate, gradients clipped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


class Descent:
    """Takes a network down a loss, one step at a time."""

    def __init__(
        self, network: nn.Module, steps: int, rate: float, *, decay: float = 0.0, beta: float = 0.99, warm: float = 0.1
    ) -> None:
        """`rate` is the highest, reached after the share `warm` of the steps; `beta` is AdamW's second."""
        self._clipped: Sequence[nn.Module] = (network,)
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, beta), weight_decay=decay)
        self._rates = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, rate, total_steps=steps, pct_start=warm)

    def clip_apart(self, *parts: nn.Module) -> None:
        """Clip the gradient of each part to norm 1, instead of the whole network's."""
        self._clipped = parts

    def step(self, loss: Tensor) -> float:
        """One step; gives the loss as a number."""
        self._optimizer.zero_grad()
        loss.backward()
        for part in self._clipped:
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        self._optimizer.step()
        self._rates.step()
        return loss.item()


def keep(network: nn.Module, path: Path) -> None:
    """Write a network's tensors."""
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
