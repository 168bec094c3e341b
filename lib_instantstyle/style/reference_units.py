"""Units whose style comes from a reference's own self-attention: which layers look at it, and how.

A preset names the same blocks as with an adapter, but *style* stands for the method's own: swapping was published for
the last three blocks, sharing for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from ..reference.host import Host
from ..reference.plans import ReferringPlan, read_pictures
from ..units.blocks import SDXL_BLOCKS, Layer, attention_layers, ldm_name, self_attention_layers
from ..units.errors import UnitError, placed
from ..units.methods import METHODS, SHARED
from ..units.routing import PRESETS, STYLE_BLOCK, route
from ..units.unit import StyleUnit
from .reference_pass import Reference, ReferencePass
from .rows import ModelCall
from .self_attention import KEPT, Attending, PooledNorm, ReferenceRows, ReferredLayer

COND, UNCOND = (True,), (False,)


def plan_referring(host: Host, number: int, unit: StyleUnit) -> ReferringPlan:
    """Find and check all that a unit of these methods names. Raises InstantStyleError naming the field."""
    if len(unit.image) > 1:
        raise UnitError(f"may hold one picture with the method {unit.method}, got {len(unit.image)}.", "image")
    with placed(field="method"):
        host.alphas_cumprod()
    with placed(field="blocks"):
        scales = routed(unit, tuple(attention_layers(host.unet())))
    picture = next(iter(read_pictures(unit)["image"]), None)
    return ReferringPlan(unit, picture, number, {layer: scale for layer, scale in scales.items() if scale})


def routed(unit: StyleUnit, layers: Sequence[Layer]) -> dict[Layer, float]:
    """Layer → scale, zeros included. Raises UnknownBlockError."""
    scales = route(unit, layers)
    if PRESETS[unit.preset].weighted != (STYLE_BLOCK,):
        return scales
    others = {layer: scale for layer, scale in scales.items() if layer.block != STYLE_BLOCK}
    return {layer: unit.weight for layer in layers if layer.block in METHODS[unit.method].blocks} | others


@dataclass(frozen=True)
class Referring:
    """What puts some units of these methods into a UNet; nothing is attached yet."""

    layers: tuple[ReferredLayer, ...]
    norms: tuple[PooledNorm, ...]
    passes: tuple[ReferencePass, ...]  # one for all references, or none

    @property
    def hooked(self) -> tuple[ReferredLayer | PooledNorm, ...]:
        """The layers that add to all rows."""
        return (*self.layers, *self.norms)


def referring(host: Host, plans: Sequence[ReferringPlan], unet: nn.Module, call: ModelCall) -> Referring:
    """The hooks of these units. Raises InstantStyleError."""
    if not plans:
        return Referring((), (), ())
    modules = self_attention_layers(unet)
    by_layer: dict[Layer, list[Attending]] = {}
    by_norm: dict[nn.Module, list[Attending]] = {}
    references: list[Reference] = []
    for plan in plans:
        rows = ReferenceRows(leads=plan.picture is None)
        acting = attending(plan, rows, tuple(modules))
        norms_of_plan = pooled(plan, rows, unet)
        for layer, unit in acting:
            by_layer.setdefault(layer, []).append(unit)
        for norm, unit in norms_of_plan:
            by_norm.setdefault(norm, []).append(unit)
        noted = {(modules[layer], leaf) for layer, unit in acting for leaf in KEPT[unit.how]}
        noted |= {(norm, "") for norm, _ in norms_of_plan}
        kinds = {(unit.curve, unit.window): unit for _, unit in acting}
        if plan.picture:
            references.append(Reference(rows, partial(plan.latent, host), tuple(kinds.values()), frozenset(noted)))
    layers = tuple(ReferredLayer(modules[layer], tuple(units), call) for layer, units in by_layer.items())
    norms = tuple(PooledNorm(norm, tuple(units), call) for norm, units in by_norm.items())
    return Referring(layers, norms, (ReferencePass(unet, references, call, host.alphas_cumprod()),))


def attending(plan: ReferringPlan, rows: ReferenceRows, layers: Iterable[Layer]) -> list[tuple[Layer, Attending]]:
    """How a unit acts in each layer. With the guard of StyleKeeper only conditional rows look at keys and values, and
    unconditional rows take the reference's query in the other layers, at the unit's weight: what leaks through queries
    is what guidance pushes away from.
    """
    unit = plan.unit

    def acting(how: str, scale: float, layer: Layer, halves: tuple[bool, ...]) -> tuple[Layer, Attending]:
        return layer, Attending(how, scale, unit.window, rows, halves, unit.curve_in(layer.block))

    halves = COND if unit.leak_guard else UNCOND + COND
    found = [acting(unit.method, scale, layer, halves) for layer, scale in plan.scales.items()]
    if not unit.leak_guard:
        return found
    others = [layer for layer in layers if layer not in plan.scales]
    return [*found, *(acting("query", unit.weight, layer, UNCOND) for layer in others)]


def pooled(plan: ReferringPlan, rows: ReferenceRows, unet: nn.Module) -> list[tuple[nn.Module, Attending]]:
    """The GroupNorms whose statistics a sharing unit pools with the reference's: all, where all of the UNet's blocks
    have one scale; else those at the entrance of its blocks, each at the scale of the block's first layer.
    """
    if plan.unit.method != SHARED:
        return []
    unit = plan.unit
    first = {layer.block: scale for layer, scale in plan.scales.items() if layer.depth == 0}
    if set(first) == set(SDXL_BLOCKS) and len(set(plan.scales.values())) == 1:
        everywhere = Attending(SHARED, next(iter(first.values())), unit.window, rows, curve=unit.curve_in(""))
        return [(module, everywhere) for module in unet.modules() if isinstance(module, nn.GroupNorm)]
    modules = dict(unet.named_modules())
    at = {
        block: next(modules[name] for name in (f"{block}.norm", f"{ldm_name(block)}.norm") if name in modules)
        for block in first
    }
    return [
        (at[block], Attending(SHARED, scale, unit.window, rows, curve=unit.curve_in(block)))
        for block, scale in first.items()
    ]
