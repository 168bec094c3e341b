"""Group norms that begin as if they were not there.

With two channels a group, a norm all but takes away a picture's absolute colours. Here one channel of each group begins
with a large positive offset and the other with a large negative one: what the norm measures is mostly the offset, and
its gain and bias give the rest back as it was.
"""

from __future__ import annotations

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

OFFSET = 4.0  # against signals of about unit variance


@torch.no_grad()
def calm_norms(half: nn.Module) -> None:
    """Prepare an encoder's or a decoder's convolutions and norms, all of one width."""
    for module in half.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv1.bias += _signs(module.conv1.bias) * OFFSET
        if isinstance(module, nn.GroupNorm):
            module.weight.fill_(OFFSET)
            module.bias.copy_(-OFFSET * _signs(module.bias))
    half.conv_in.bias += _signs(half.conv_in.bias) * OFFSET
    for name, module in half.named_modules():
        if isinstance(module, nn.Conv2d) and ("upsamplers" in name or "downsamplers" in name):
            signs = _signs(module.bias) * OFFSET
            module.bias += (
                signs - module.weight.sum((2, 3)) @ signs
            )  # for the offset that comes in, the one that goes out


def _signs(bias: Tensor) -> Tensor:
    """+1, −1, +1, …"""
    return 1 - 2.0 * (torch.arange(len(bias)) % 2)
