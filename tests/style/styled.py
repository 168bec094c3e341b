"""One attn2 with units attached to it, and the same by the written formula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.key_values import ImageKeyValue
from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.units.schedule import Window

WIDTH, CONTEXT, HEADS, SEQUENCE = 16, 12, 4, 9
ROWS = (False, True)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # float32, sums of a dozen terms of size one


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(rows)
    return torch.randn(rows, SEQUENCE, WIDTH, generator=made), torch.randn(rows, 7, CONTEXT, generator=made)


def unit(tokens: int = 4, scale: float = 0.7, window: Window | None = None, seed: int = 0) -> ImageKeyValue:
    made = torch.Generator().manual_seed(seed)
    key, value = (2 * torch.randn(2, tokens, WIDTH, generator=made) for _ in range(2))
    return ImageKeyValue(key, value, scale, window or Window())


@contextmanager
def attached(attn2: nn.Module, *units: ImageKeyValue, rows: Sequence[bool] | None = ROWS) -> Iterator[ModelCall]:
    call = ModelCall()
    call.begin(rows, 0 if rows is None else len(rows))
    layer = StyledLayer(attn2, units, call)
    layer.attach()
    try:
        yield call
    finally:
        layer.detach()


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int = HEADS) -> Tensor:
    split = [y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (query, key, value)]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


def formula(attn2: nn.Module, x: Tensor, context: Tensor, units: Sequence[ImageKeyValue], rows: list[int]) -> Tensor:
    """to_out(Attn(q, K, V) + Σ scale · Attn(q, K_ip, V_ip)), one attention after the other."""
    query = x @ attn2.to_q.weight.T
    total = attend(query, context @ attn2.to_k.weight.T, context @ attn2.to_v.weight.T, attn2.heads)
    for one in units:
        total = total + one.scale * attend(query, one.key[rows], one.value[rows], attn2.heads)
    return total @ attn2.to_out[0].weight.T + attn2.to_out[0].bias
