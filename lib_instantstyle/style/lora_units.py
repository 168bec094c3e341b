"""Units whose style comes from a LoRA: which of its pairs act, how strongly, and the layers they are added to.

Only pairs of the routed blocks act (B-LoRA, arXiv:2403.14572, does so with two blocks): those of a transformer layer at
that layer's scale, those of the block's own projections where all layers of the block have one scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from ..files.loras import LoraInfo, Target
from ..reference.host import Host
from ..reference.plans import LoraPlan
from ..units.blocks import Layer, attention_layers
from ..units.errors import IncompatibleModelError, UnknownBlockError, placed
from ..units.routing import route
from ..units.unit import StyleUnit
from .low_rank import AdaptedLayer, LowRank, linear_widths
from .rows import ModelCall


def plan_lora(host: Host, number: int, unit: StyleUnit) -> LoraPlan:
    """Find and check all that a LoRA unit names. Raises InstantStyleError naming the field."""
    unet = host.unet()
    layers = tuple(attention_layers(unet))
    with placed(field="blocks"):
        scales = route(unit, layers)
    lora = host.files.loras.named(unit.lora)
    found = pair_scales(lora.pairs, scales, layers)
    check_fits(lora, unet, found)
    acting = {target: scale for target, scale in found.items() if scale}
    if not found or (any(scales.values()) and not acting):
        _refuse_blocks(lora, scales)
    return LoraPlan(unit, lora, number, acting)


def pair_scales(pairs: Iterable[Target], scales: Mapping[Layer, float], layers: Sequence[Layer]) -> dict[Target, float]:
    """Target → scale for the pairs in routed blocks, zeros included. `layers`: all that the UNet has."""
    blocks = {layer.block for layer in scales}
    there = {(layer.block, layer.depth): scales.get(layer, 0.0) for layer in layers}
    of_block: dict[str, set[float]] = {}
    for (block, _), scale in there.items():
        of_block.setdefault(block, set()).add(scale)

    def scale_of(target: Target) -> float:
        if target.depth is not None:
            return there.get((target.block, target.depth), 0.0)
        shared = of_block[target.block]
        return next(iter(shared)) if len(shared) == 1 else 0.0

    return {target: scale_of(target) for target in pairs if target.block in blocks}


def check_fits(lora: LoraInfo, unet: nn.Module, targets: Iterable[Target]) -> None:
    """Raise IncompatibleModelError unless each of these pairs has a layer in the UNet, of its own sizes."""
    modules = dict(unet.named_modules())
    for target in targets:
        module, expected = _layer_at(target, modules), lora.pairs[target].widths
        given = linear_widths(module) if module is not None else None
        if given != expected:
            has = f"{given[0]}×{given[1]}" if given else "no such layer"
            raise IncompatibleModelError(
                f"{lora.path.name} does not fit the loaded checkpoint: at {target.paths[0]} it has "
                f"{expected[0]}×{expected[1]}, the checkpoint {has}. Choose a LoRA that was trained on SDXL.",
                "lora",
            )


def _refuse_blocks(lora: LoraInfo, scales: Mapping[Layer, float]) -> None:
    asked = dict.fromkeys(layer.block for layer, scale in scales.items() if scale or not any(scales.values()))
    raise UnknownBlockError(
        f"{lora.path.name} contains nothing for {', '.join(asked)}, only for "
        f"{', '.join(dict.fromkeys(target.block for target in lora.pairs))}. Choose a preset with one of these blocks, "
        "or original, which uses all of them. (A block's own projections act only if its layers have one scale.)",
        "preset",
    )


@torch.no_grad()
def adapted_layers(plans: Sequence[LoraPlan], unet: nn.Module, call: ModelCall) -> list[AdaptedLayer]:
    """The layers of the UNet that these units' pairs are added to, not attached yet. Raises InstantStyleError."""
    modules = dict(unet.named_modules())
    found: dict[Target, list[LowRank]] = {}
    for plan in plans:
        with placed(unit=plan.number):
            check_fits(plan.lora, unet, plan.scales)  # it may be another checkpoint than the one planned for
            pairs = plan.pairs()
            for target, scale in plan.scales.items():
                down, up = pairs[target]
                pair = LowRank(down, up * scale, plan.unit.window, plan.unit.curve_in(target.block))
                found.setdefault(target, []).append(pair)
    return [AdaptedLayer(modules[_path_of(target, modules)], tuple(pairs), call) for target, pairs in found.items()]


def _path_of(target: Target, modules: Mapping[str, nn.Module]) -> str:
    return next((path for path in target.paths if path in modules), target.paths[0])


def _layer_at(target: Target, modules: Mapping[str, nn.Module]) -> nn.Module | None:
    return modules.get(_path_of(target, modules))
