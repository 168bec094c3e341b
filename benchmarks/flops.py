"""Arithmetic of one UNet call, counted on shapes alone: no weight is allocated, and no machine is too slow or too busy.

What is counted are matrix products, convolutions and attention; what moves memory without them is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.key_values import ImageKeyValue
from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.routing import route
from lib_instantstyle.units.schedule import Window
from lib_instantstyle.units.unit import StyleUnit

from .models import Size, adapter_tensors, make_unet, marks, unet_inputs
from .peers import SCALES, DiffusersAdapter
from .report import Table

META = torch.device("meta")


def products(total: Sequence[int], left: Sequence[int], right: Sequence[int], **_: object) -> int:
    """FLOPs of total += left @ right, given their shapes."""
    return 2 * math.prod(left) * right[-1]


IN_PLACE = {torch.ops.aten.baddbmm_: products}  # which torch does not count


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of `work`; a multiplication with its addition is two."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        work()
    return counter.get_total_flops()


@contextmanager
def styled(unet: nn.Module, units: int, tokens: int, rows: int, preset: str) -> Iterator[None]:
    """While it lasts, units of a preset act in `unet`, with keys and values of shapes alone."""
    modules = attention_layers(unet)
    call = ModelCall(cond_rows=marks(rows))
    layers = []
    for layer, scale in route(StyleUnit(preset=preset), tuple(modules)).items():
        width = modules[layer].to_k.weight.shape[0]
        pair = (torch.empty(2, tokens, width, device=META) for _ in range(2))
        unit = ImageKeyValue(*pair, scale, Window())
        layers.append(StyledLayer(modules[layer], (unit,) * units, call))
    for styled_layer in layers:
        styled_layer.attach()
    try:
        yield
    finally:
        for styled_layer in layers:
            styled_layer.detach()


OURS = {
    "style, one unit": ("style", 1, 4),
    "style, three units": ("style", 3, 4),
    "style, eight units": ("style", 8, 4),
    "style, 16 tokens": ("style", 1, 16),
    "style, 257 tokens": ("style", 1, 257),
    "style + layout, one unit": ("style_and_layout", 1, 4),
    "original (all 70 layers), one unit": ("original", 1, 4),
}


def count(size: Size, pixels: int, batch: int = 1) -> Table:
    """FLOPs of one UNet call with guidance under each configuration, ours and diffusers'."""
    unet = make_unet(size, META, torch.float16)
    inputs = unet_inputs(unet, size, 2 * batch, pixels)
    found = {"plain UNet": flops(lambda: unet(**inputs))}
    for name, (preset, units, tokens) in OURS.items():
        with styled(unet, units, tokens, 2 * batch, preset):
            found[name] = flops(lambda: unet(**inputs))
    peer = DiffusersAdapter(unet, inputs, adapter_tensors(unet, device="meta"))
    for preset, scales in SCALES.items():
        peer.enter(scales)
        found[f"diffusers, {preset}"] = flops(lambda: unet(**inputs))
        peer.leave()
    rows = {name: {"GFLOP": value / 1e9, "more than plain, %": more(found, name)} for name, value in found.items()}
    note = f"One UNet call with guidance, batch {batch}, {pixels}×{pixels}, size {size.name}. {once(unet)}"
    return Table("arithmetic of a step", {"GFLOP": ",.1f", "more than plain, %": ".4f"}, rows, note)


def more(found: Mapping[str, int], name: str) -> float:
    """How many per cent more than the plain UNet."""
    return 100 * (found[name] / found["plain UNet"] - 1)


def once(unet: nn.Module, tokens: int = 4) -> str:
    """What ours computes once for a job instead: K and V of both kinds of rows in the style block."""
    modules = attention_layers(unet)
    routed = route(StyleUnit(), tuple(modules))
    found = sum(2 * 2 * (2 * tokens) * modules[layer].to_k.weight.numel() for layer in routed)  # K and V
    return f"Keys and values of the style block, once for a job: {found / 1e9:.3f} GFLOP."
