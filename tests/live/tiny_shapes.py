"""Shapes of the tiny SDXL's UNet, by the names a checkpoint gives its tensors; and of the layers in all towers."""

from __future__ import annotations

import os
from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]

LATENT_CHANNELS = 4
TIMES = int(os.environ.get("INSTANTSTYLE_LIVE_WIDTHS", "1"))  # with 10 they are SDXL's; benchmarks/in_webui.py
NARROW, MEDIUM, WIDE = 32 * TIMES, 64 * TIMES, 128 * TIMES
TIME_WIDTH = 4 * NARROW
SHALLOW, DEEP = 2, 10  # transformer blocks at the medium and at the wide level
HEAD_WIDTH = 16 if TIMES == 1 else 64

CLIP_WIDTH, OPEN_CLIP_WIDTH = 32, 256  # of the two text towers
CONTEXT_WIDTH = CLIP_WIDTH + OPEN_CLIP_WIDTH
VECTOR_WIDTH = OPEN_CLIP_WIDTH + 6 * 256  # pooled text, then six numbers on size and crop


class Block(NamedTuple):
    """A UNet block: a residual layer from one width to another, then a transformer."""

    name: str
    inner: int
    outer: int
    depth: int


# The decoder's blocks take in what the level below and the encoder's skip give.
BLOCKS = (
    Block("input_blocks.1", NARROW, NARROW, 0),
    Block("input_blocks.2", NARROW, NARROW, 0),
    Block("input_blocks.4", NARROW, MEDIUM, SHALLOW),
    Block("input_blocks.5", MEDIUM, MEDIUM, SHALLOW),
    Block("input_blocks.7", MEDIUM, WIDE, DEEP),
    Block("input_blocks.8", WIDE, WIDE, DEEP),
    Block("output_blocks.0", WIDE + WIDE, WIDE, DEEP),
    Block("output_blocks.1", WIDE + WIDE, WIDE, DEEP),
    Block("output_blocks.2", WIDE + MEDIUM, WIDE, DEEP),
    Block("output_blocks.3", WIDE + MEDIUM, MEDIUM, SHALLOW),
    Block("output_blocks.4", MEDIUM + MEDIUM, MEDIUM, SHALLOW),
    Block("output_blocks.5", MEDIUM + NARROW, MEDIUM, SHALLOW),
    Block("output_blocks.6", MEDIUM + NARROW, NARROW, 0),
    Block("output_blocks.7", NARROW + NARROW, NARROW, 0),
    Block("output_blocks.8", NARROW + NARROW, NARROW, 0),
)
RESIZERS = {
    "input_blocks.3.0.op": NARROW,
    "input_blocks.6.0.op": MEDIUM,
    "output_blocks.2.2.conv": WIDE,
    "output_blocks.5.2.conv": MEDIUM,
}

# The cross-attentions in the order of an adapter's keys: down, up, and the middle last.
LAYER_WIDTHS = (*(block.outer for block in BLOCKS for _ in range(block.depth)), *(WIDE,) * DEEP)


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def stack(name: str, count: int, shapes: Shapes) -> Shapes:
    return {f"{name}.{i}.{key}": shape for i in range(count) for key, shape in shapes.items()}


def linear(name: str, outer: int, inner: int, *, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outer, inner)}
    return weight | {f"{name}.bias": (outer,)} if bias else weight


def conv(name: str, outer: int, inner: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (outer, inner, kernel, kernel), f"{name}.bias": (outer,)}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def unet(deep: int = DEEP) -> Shapes:
    """With another number of transformer blocks at the wide level it is a UNet of another family than SDXL's."""
    shapes = (
        linear("time_embed.0", TIME_WIDTH, NARROW)
        | linear("time_embed.2", TIME_WIDTH, TIME_WIDTH)
        | linear("label_emb.0.0", TIME_WIDTH, VECTOR_WIDTH)
        | linear("label_emb.0.2", TIME_WIDTH, TIME_WIDTH)
        | conv("input_blocks.0.0", NARROW, LATENT_CHANNELS)
        | _middle(deep)
        | norm("out.0", NARROW)
        | conv("out.2", LATENT_CHANNELS, NARROW)
    )
    for block in BLOCKS:
        shapes |= _residual(f"{block.name}.0", block.inner, block.outer)
        if block.depth:
            shapes |= _transformer(f"{block.name}.1", block.outer, deep if block.depth == DEEP else block.depth)
    for name, width in RESIZERS.items():
        shapes |= conv(name, width, width)
    return shapes


def _middle(deep: int) -> Shapes:
    return (
        _residual("middle_block.0", WIDE, WIDE)
        | _transformer("middle_block.1", WIDE, deep)
        | _residual("middle_block.2", WIDE, WIDE)
    )


def _residual(name: str, inner: int, outer: int) -> Shapes:
    shapes = (
        norm(f"{name}.in_layers.0", inner)
        | conv(f"{name}.in_layers.2", outer, inner)
        | linear(f"{name}.emb_layers.1", outer, TIME_WIDTH)
        | norm(f"{name}.out_layers.0", outer)
        | conv(f"{name}.out_layers.3", outer, outer)
    )
    return shapes if inner == outer else shapes | conv(f"{name}.skip_connection", outer, inner, 1)


def _transformer(name: str, width: int, depth: int) -> Shapes:
    return (
        norm(f"{name}.norm", width)
        | linear(f"{name}.proj_in", width, width)
        | stack(f"{name}.transformer_blocks", depth, _transformer_block(width))
        | linear(f"{name}.proj_out", width, width)
    )


def _transformer_block(width: int) -> Shapes:
    return (
        _attention("attn1", width, width)
        | _attention("attn2", width, CONTEXT_WIDTH)
        | linear("ff.net.0.proj", 8 * width, width)  # half of it gates the other half
        | linear("ff.net.2", width, 4 * width)
        | norm("norm1", width)
        | norm("norm2", width)
        | norm("norm3", width)
    )


def _attention(name: str, width: int, context: int) -> Shapes:
    return (
        linear(f"{name}.to_q", width, width, bias=False)
        | linear(f"{name}.to_k", width, context, bias=False)
        | linear(f"{name}.to_v", width, context, bias=False)
        | linear(f"{name}.to_out.0", width, width)
    )
