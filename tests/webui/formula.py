"""The style of a job by the written formula, in a replaced `forward`; rows are told apart by their text alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..by_hand import World
from ..style.styled import attend
from ..tiny.clip import POOLED
from .fakes.checkpoint import CHUNK

BLOCK, LAYERS = "output_blocks.1.1", (8, 9)  # up_blocks.0.attentions.1 and its layers' numbers in an adapter

KeyValue = tuple[Tensor, Tensor]  # each (2, tokens, inner), row 0 unconditional


@contextmanager
def by_formula(
    web: Any,
    negative: str = "",
    scale: float = 1.0,
    acts: Callable[[], bool] = lambda: True,
    share: Tensor | float = 1.0,
) -> Iterator[None]:
    """The style of `seen.unit()` in every call in which it `acts`, without any of our code.

    `share` (1, places, 1): how much of it at each place of the style block's grid.
    """
    uncond = web.sd_model.get_learned_conditioning([negative])["crossattn"][0, :CHUNK]
    blocks = web.unet.get_submodule(BLOCK).transformer_blocks
    for block, (key, value) in zip(blocks, key_values(World(web.models_path, "ControlNet"))):
        block.attn2.forward = _styled(block.attn2, (key, scale * value), uncond, lambda: share if acts() else 0.0)
    try:
        yield
    finally:
        for block in blocks:
            del block.attn2.forward


def key_values(world: World) -> list[KeyValue]:
    """K and V of the style block's layers, of no picture and of `picture()`."""
    tokens = torch.cat([world.tokens(torch.zeros(1, POOLED)), world.tokens(world.image_embeds(0))])
    to_v = [world.adapters["base"][f"ip_adapter.{2 * layer + 1}.to_v_ip.weight"] for layer in LAYERS]
    return [(world.key(tokens, layer), tokens @ weight.T) for layer, weight in zip(LAYERS, to_v)]


def _styled(attn2: Any, image: KeyValue, uncond: Tensor, share: Callable[[], Tensor | float]) -> Callable[..., Tensor]:
    heads: int = attn2.heads

    def forward(x: Tensor, context: Tensor) -> Tensor:
        rows = [int(not torch.equal(row[:CHUNK], uncond)) for row in context]
        query = attn2.to_q(x)
        total = attend(query, attn2.to_k(context), attn2.to_v(context), heads)
        total = total + share() * attend(query, image[0][rows], image[1][rows], heads)
        return attn2.to_out(total)

    return forward
