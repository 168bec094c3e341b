"""An autoencoder that begins by averaging cells and repeating their colours, instead of at random.

Its group norms, of three channels a group, would take away a picture's absolute colours. Here every group begins as
(OFFSET, −OFFSET, x): what the norm measures is the offset, so its gain gives x back, less a third of x's mean, by which
the other two channels are off as well. Groups come in pairs, with x and −x, because silu(x) − silu(−x) = x carries a
signal through the activation.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from .train_latents import COLOUR_SCALE

OFFSET = 6.0  # against signals of about unit variance
LITTLE = 0.1  # what is left of the random weights
SPREAD = 0.05  # deviation of the encoder's posterior, in latents of about unit variance


@torch.no_grad()
def begin_with_colours(vae: AutoencoderKL) -> None:
    """Set the weights so that latents begin as mean colours and pictures as those colours repeated."""
    for half in (vae.encoder, vae.decoder):
        _calm(half)
        _copy_in(half.conv_in)
    for name, module in vae.named_modules():
        if "samplers" in name and isinstance(module, nn.Conv2d):
            _pass_on(module, averaging="downsamplers" in name)
    _copy_out(vae.encoder.conv_out, COLOUR_SCALE)
    _copy_out(vae.decoder.conv_out, 1 / COLOUR_SCALE)
    vae.encoder.conv_out.bias[4:] = 2 * math.log(SPREAD)
    vae.encoder.conv_out.weight[4:] = 0
    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight.copy_(torch.eye(len(conv.weight))[..., None, None])
        conv.bias.zero_()


def hold_offsets(vae: AutoencoderKL) -> None:
    """Let training leave alone what convolutions that no norm goes before make of the offsets: of so many channels so
    large, each step would change everything."""
    for name, module in vae.named_modules():
        if "samplers" in name and isinstance(module, nn.Conv2d):
            free = (_offsets(module.in_channels) == 0).view(1, -1, 1, 1)
            module.weight.register_hook(lambda gradient, free=free: gradient * free)


def _offsets(channels: int) -> Tensor:
    """(OFFSET, −OFFSET, 0), again and again."""
    return torch.tensor([OFFSET, -OFFSET, 0.0]).repeat(channels // 3)


def _calm(half: nn.Module) -> None:
    """Norms that only take the offsets away; residual layers and attention that add nothing yet."""
    for module in half.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.fill_(OFFSET * math.sqrt(2 / 3))
            module.bias.copy_(-_offsets(len(module.bias)))
        if isinstance(module, ResnetBlock2D):
            module.conv1.bias += _offsets(len(module.conv1.bias))
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    out = half.mid_block.attentions[0].to_out[0]
    nn.init.zeros_(out.weight)
    nn.init.zeros_(out.bias)


def _copy_in(conv: nn.Conv2d) -> None:
    """Each input channel as a pair of signals, the other pairs as random features of all."""
    signals = conv.weight[2::3]
    signals[1::2] = -signals[::2]
    signals[: 2 * conv.in_channels] = 0
    for channel in range(conv.in_channels):
        signals[2 * channel, channel, 1, 1] = 1
        signals[2 * channel + 1, channel, 1, 1] = -1
    for offset in (0, 1):
        conv.weight[offset::3] = 0
    conv.bias.copy_(_offsets(len(conv.bias)))


def _pass_on(conv: nn.Conv2d, *, averaging: bool) -> None:
    """Every channel as it is, or the mean of two by two; a little of everything else among the signals."""
    conv.weight *= LITTLE
    for offset in (0, 1):
        conv.weight[offset::3] = 0
        conv.weight[:, offset::3] = 0
    for channel in range(conv.in_channels):
        if averaging:
            conv.weight[channel, channel, :2, :2] += 0.25
        else:
            conv.weight[channel, channel, 1, 1] += 1
    conv.bias.zero_()


def _copy_out(conv: nn.Conv2d, scale: float) -> None:
    """The first three signals, which are colours: x − x̄/3 from the signals, x̄/3 from what the offsets are off by."""
    conv.weight *= LITTLE
    conv.bias.zero_()
    for channel in range(3):
        for sign, group in ((1, 2 * channel), (-1, 2 * channel + 1)):
            conv.weight[channel, 3 * group + 2, 1, 1] += sign * scale
            conv.weight[channel, 3 * group, 1, 1] -= sign * scale
