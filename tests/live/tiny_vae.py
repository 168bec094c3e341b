"""Shapes of the tiny SDXL's VAE."""

from __future__ import annotations

from tiny_shapes import LATENT_CHANNELS, Shapes, conv, norm, under

WIDTHS = (32, 32, 32, 32)  # 32 is the most that xformers' attention takes on a processor


def vae() -> Shapes:
    moments = 2 * LATENT_CHANNELS
    return (
        under("encoder.", _encoder())
        | under("decoder.", _decoder())
        | conv("quant_conv", moments, moments, 1)
        | conv("post_quant_conv", LATENT_CHANNELS, LATENT_CHANNELS, 1)
    )


def _encoder() -> Shapes:
    first, last = WIDTHS[0], WIDTHS[-1]
    shapes = conv("conv_in", first, 3) | _middle(last)
    for level, width in enumerate(WIDTHS):
        inner = WIDTHS[max(level - 1, 0)]
        shapes |= _level(f"down.{level}", inner, width, 2)
        if level < len(WIDTHS) - 1:
            shapes |= conv(f"down.{level}.downsample.conv", width, width)
    return shapes | norm("norm_out", last) | conv("conv_out", 2 * LATENT_CHANNELS, last)


def _decoder() -> Shapes:
    first, last = WIDTHS[0], WIDTHS[-1]
    shapes = conv("conv_in", last, LATENT_CHANNELS) | _middle(last)
    for level, width in enumerate(WIDTHS):
        inner = WIDTHS[min(level + 1, len(WIDTHS) - 1)]
        shapes |= _level(f"up.{level}", inner, width, 3)
        if level:
            shapes |= conv(f"up.{level}.upsample.conv", width, width)
    return shapes | norm("norm_out", first) | conv("conv_out", 3, first)


def _level(name: str, inner: int, width: int, blocks: int) -> Shapes:
    shapes = _residual(f"{name}.block.0", inner, width)
    for index in range(1, blocks):
        shapes |= _residual(f"{name}.block.{index}", width, width)
    return shapes


def _residual(name: str, inner: int, outer: int) -> Shapes:
    shapes = (
        norm(f"{name}.norm1", inner)
        | conv(f"{name}.conv1", outer, inner)
        | norm(f"{name}.norm2", outer)
        | conv(f"{name}.conv2", outer, outer)
    )
    return shapes if inner == outer else shapes | conv(f"{name}.nin_shortcut", outer, inner, 1)


def _middle(width: int) -> Shapes:
    shapes = _residual("mid.block_1", width, width) | norm("mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        shapes |= conv(f"mid.attn_1.{name}", width, width, 1)
    return shapes | _residual("mid.block_2", width, width)
