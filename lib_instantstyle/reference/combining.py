"""Several pictures as one style: their embeddings side by side, or averaged before they are projected.

    concat         e_1 … e_n, whose tokens stand in one softmax      IP-Adapter, arXiv:2308.06721
    average        mean_i s_i e_i                                    ComfyUI_IPAdapter_plus@9d076a3, `combine_embeds`
    norm_average   mean_i s_i e_i / ‖e‖                              likewise; ‖e‖ over the pictures, for each feature

The shares s are the pictures' weights at a mean of 1. A picture of weight 0 is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Combining:
    """In what way a unit's pictures become one style."""

    how: str = "concat"
    weights: tuple[float, ...] | None = None  # for each picture, not all 0; None: all alike

    def of(self, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """(n, …) embeddings → (m, …) that are projected, and the share (m,) that each one's values get."""
        weights = torch.tensor(self.weights or (1.0,) * len(embeds))
        embeds, weights = embeds[weights > 0], weights[weights > 0]
        shares = weights / weights.mean()
        if self.how == "concat" or len(embeds) == 1:
            return embeds, shares
        return AVERAGES[self.how](embeds, shares), torch.ones(1)


def average(embeds: Tensor, shares: Tensor) -> Tensor:
    """(n, …), (n,) → (1, …)."""
    return _weighted(embeds, shares).mean(0, keepdim=True)


def norm_average(embeds: Tensor, shares: Tensor) -> Tensor:
    """(n, …), (n,) → (1, …): what all pictures have alike counts more than what one of them has most."""
    return average(embeds / embeds.norm(dim=0, keepdim=True).clamp_min(1e-12), shares)


def _weighted(embeds: Tensor, shares: Tensor) -> Tensor:
    return embeds * shares.to(embeds).view(-1, *[1] * (embeds.dim() - 1))


AVERAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"average": average, "norm_average": norm_average}
