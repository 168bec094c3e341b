"""Image projections: from CLIP image embeddings to the tokens that cross attention sees.

Module and parameter names are those of the published checkpoints (tencent-ailab/IP-Adapter@62e4af9,
ip_adapter/ip_adapter.py and resampler.py), so that a file's tensors load by name; all sizes come from the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

MAX_DEPTH = 64  # layers of a Resampler; the published ones have four
HEAD_DIM = 64  # of the Resampler's attention; the published files do not store it


class ImageProjModel(nn.Module):
    """Base variant: LayerNorm(Linear(e)), cut into tokens."""

    def __init__(self, embed_dim: int, cross_attention_dim: int, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(embed_dim, tokens * cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)

    def forward(self, image_embeds: Tensor) -> Tensor:
        """(n, embed_dim) pooled embeddings → (n, tokens, cross_attention_dim)."""
        return self.norm(self.proj(image_embeds).unflatten(-1, (self.tokens, -1)))


class PerceiverAttention(nn.Module):
    """Latent tokens attend to image features and to themselves."""

    def __init__(self, dim: int, inner_dim: int) -> None:
        super().__init__()
        self.heads = max(inner_dim // HEAD_DIM, 1)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, inner_dim * 2, bias=False)
        self.to_out = nn.Linear(inner_dim, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        features, latents = self.norm1(features), self.norm2(latents)
        query = self._split(self.to_q(latents))  # (n, heads, tokens, head_dim)
        key, value = map(self._split, self.to_kv(torch.cat([features, latents], dim=1)).chunk(2, dim=-1))
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(dim=-1)
        return self.to_out((weights @ value).transpose(1, 2).flatten(2))  # (n, tokens, dim)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def feed_forward(dim: int, hidden: int) -> nn.Sequential:
    """LayerNorm, widen, GELU, narrow; the numbering of the parts is that of the checkpoints."""
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, hidden, bias=False), nn.GELU(), nn.Linear(hidden, dim, bias=False)
    )


class Resampler(nn.Module):
    """Plus variant: learned latent tokens read the encoder's penultimate hidden states."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], cross_attention_dim: int) -> None:
        super().__init__()
        _, tokens, dim = shapes["latents"]
        inner_dim, hidden = shapes["layers.0.0.to_q.weight"][0], shapes["layers.0.1.1.weight"][0]
        depth = sum(name.endswith("0.to_q.weight") for name in shapes)
        if depth > MAX_DEPTH:
            raise ValueError(f"{depth} layers")
        self.latents = nn.Parameter(torch.zeros(1, tokens, dim))
        self.proj_in = nn.Linear(shapes["proj_in.weight"][1], dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, inner_dim), feed_forward(dim, hidden)]) for _ in range(depth)
        )
        self.proj_out = nn.Linear(dim, cross_attention_dim)
        self.norm_out = nn.LayerNorm(cross_attention_dim)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(n, patches + 1, width) hidden states → (n, tokens, cross_attention_dim)."""
        latents = self.latents.expand(hidden_states.shape[0], -1, -1)
        features = self.proj_in(hidden_states)
        for attention, widen in cast(Iterable[tuple[nn.Module, nn.Module]], self.layers):
            latents = attention(features, latents) + latents
            latents = widen(latents) + latents
        return self.norm_out(self.proj_out(latents))
