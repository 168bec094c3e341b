"""One cross attention, in ldm's form and in diffusers'."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """ldm's cross attention: the leaves to_q, to_k, to_v and to_out, and plain softmax attention."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        query, key, value = (self._heads(y) for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        weights = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        return self.to_out((weights @ value).transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def cross_attention(kind: str, width: int = 16, context: int = 12, heads: int = 4) -> nn.Module:
    """An `attn2` of either kind; both are called as attn2(x, context)."""
    torch.manual_seed(0)
    if kind == "ldm":
        return CrossAttention(width, context, heads).eval().requires_grad_(False)
    attention = Attention(width, cross_attention_dim=context, heads=heads, dim_head=width // heads)
    return attention.eval().requires_grad_(False)
