"""One style job: plan (check everything), attach (compute K and V, put the hooks in place), detach.

Speaks to a Host only, and holds what a job needs between its sampling passes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ..files.adapters import Adapter
from ..reference.embedding import Embedder
from ..reference.host import Host
from ..reference.names import fingerprint
from ..reference.plans import LoraPlan, Plan, ReferringPlan, UnitPlan, plan_palette, plan_reference
from ..reference.removal import read_reference
from ..units.blocks import Layer, attention_layers
from ..units.errors import CheckpointError, placed
from ..units.methods import ADAPTER, LORA, PALETTE
from ..units.routing import route, route_pushes
from ..units.unit import StyleUnit
from .attention import StyledLayer
from .key_values import ImageKeyValue
from .lora_units import adapted_layers, plan_lora
from .low_rank import LowRank
from .palette import Palette, colours
from .reference_units import plan_referring, referring
from .regions import Region
from .rows import ModelCall, never
from .self_attention import Attending

KEPT_UNITS = 16  # units whose keys and values stay in memory between jobs, under 1 MiB each for style alone
KEPT_BYTES = 256 << 20  # of all of them together: every block of a plus adapter takes 23 MB a picture
LARGEST = 7e3  # of a key or value: times the largest scale, 9, it must not overflow in half precision

KeyValues = dict[int, tuple[Tensor, Tensor]]  # layer index → K and V, each (2, tokens, inner)


class Hooked(Protocol):
    """A layer of the UNet with what is to happen there."""

    def attach(self) -> None: ...

    def detach(self) -> None: ...


@dataclass
class StyleSession:
    """Holds at most one job's hooks. `detach` is idempotent and safe at any time."""

    host: Host
    call: ModelCall = field(default_factory=ModelCall)
    latent_size: tuple[int, int] | None = None  # height, width in the pass that begins, where the host knows
    palette: Palette = field(init=False)  # the host asks it before and after each model call
    _layers: list[Hooked] = field(default_factory=list)
    _unet: nn.Module | None = None
    _kept: OrderedDict[str, KeyValues] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.palette = Palette(self.call)

    @property
    def attached_to(self) -> nn.Module | None:
        """The UNet that carries our hooks now."""
        return self._unet

    def plan(self, units: Sequence[StyleUnit]) -> tuple[Plan, ...]:
        """Check every enabled unit whole against the live UNet and the installed files; errors name unit and field."""
        enabled = [(number, unit) for number, unit in enumerate(units, 1) if unit.enabled]
        return tuple(self._numbered_plan(number, unit) for number, unit in enabled)

    def _numbered_plan(self, number: int, unit: StyleUnit) -> Plan:
        with placed(unit=number):
            unit.check()
            if unit.method == LORA:
                return plan_lora(self.host, number, unit)
            if unit.method == PALETTE:
                return plan_palette(number, unit)
            if unit.method != ADAPTER:
                return plan_referring(self.host, number, unit)
            return self._plan(number, unit)

    def _plan(self, number: int, unit: StyleUnit) -> UnitPlan:
        modules = attention_layers(self.host.unet())
        scales = _routed(unit, tuple(modules))
        adapter = self.host.files.adapter(unit.adapter)
        adapter.check_fits(modules)
        pushes = route_pushes(unit, tuple(modules))
        adapter.check_carries({**scales, **pushes})
        acting = {layer: scale for layer, scale in scales.items() if scale}
        reference = plan_reference(self.host, unit, adapter)
        return UnitPlan(**vars(reference), number=number, scales=acting, pushes=pushes if acting else {})

    def attach(self, plans: Sequence[Plan]) -> None:
        """Compute what is missing and put the hooks on the live UNet; whatever was attached before is gone."""
        self.detach()
        acting = [plan for plan in plans if plan.acts]
        for plan in plans:
            if not plan.acts:
                plan.let_go()
        if not acting:
            return
        unet = self.host.unet()
        self._take_colours(acting)
        acting = [plan for plan in acting if plan.scales]
        adapted = adapted_layers([plan for plan in acting if isinstance(plan, LoraPlan)], unet, self.call)
        looked_at = [plan for plan in acting if isinstance(plan, ReferringPlan)]
        looking = referring(self.host, looked_at, unet, self.call)
        if self.latent_size:  # now, and not amid the pass: a host may move its models
            for plan in filter(lambda plan: plan.picture, looked_at):
                plan.latent(self.host, self.latent_size)
        styled = self._styled([plan for plan in acting if isinstance(plan, UnitPlan)], unet)
        self._unet = unet
        self.call.adapted = {layer.module: layer.acts_at for layer in (*adapted, *looking.hooked)}
        self.call.is_due = _due_at([unit for layer in (*adapted, *looking.hooked, *styled) for unit in layer.units])
        hooked: list[Hooked] = [*adapted, *looking.hooked, *styled, *looking.passes]  # a query with the LoRA in it
        for layer in hooked:
            self._layers.append(layer)
            layer.attach()

    def _take_colours(self, plans: Sequence[Plan]) -> None:
        """Of the references whose colours are taken over; encoded now if the size is known."""
        self.palette.units = colours(self.host, [plan for plan in plans if not isinstance(plan, LoraPlan)])
        if size := self.latent_size:
            for unit in self.palette.units:
                unit.of(size)

    def _styled(self, plans: Sequence[UnitPlan], unet: nn.Module) -> list[StyledLayer]:
        """The cross-attention layers that see these units' pictures, not attached yet."""
        modules = attention_layers(unet)
        routed: dict[Layer, list[ImageKeyValue]] = {}
        for plan in plans:
            plan.adapter.check_fits(modules)  # it may be another checkpoint than the one planned for: hires, refiner
        for plan in plans:
            for layer, contribution in self._contributions(plan).items():
                routed.setdefault(layer, []).append(contribution)
        return [StyledLayer(modules[layer], tuple(units), self.call) for layer, units in routed.items()]

    def detach(self) -> None:
        """Take every hook out of the UNet that carries them; no call of it is ours any more."""
        self.call.idle()
        while self._layers:
            self._layers[-1].detach()  # one that fails is still known to the next who detaches
            self._layers.pop()
        self._unet, self.call.is_due, self.call.adapted = None, never, {}
        self.palette.units = ()

    def _contributions(self, plan: UnitPlan) -> dict[Layer, ImageKeyValue]:
        with placed(unit=plan.number):
            key_values = self._key_values(plan)

        unit = plan.unit
        region = Region.of(plan.read["mask"][0].image) if plan.read["mask"] else None

        def acting(layer: Layer, scale: float) -> ImageKeyValue:
            when = (unit.window, unit.curve_in(layer.block))
            made = ImageKeyValue(*key_values[layer.index], scale, *when, unit.kv_scaling, unit.fusion, region)
            return replace(made, guidance=unit.attention_guidance)

        direct = {layer: acting(layer, scale) for layer, scale in plan.scales.items()}
        return direct | {layer: acting(layer, 1.0).pushing(scale) for layer, scale in plan.pushes.items()}

    def _key_values(self, plan: UnitPlan) -> KeyValues:
        """K and V of a unit's layers, kept by what they were computed from; only the missing layers are read."""
        reference = read_reference(plan, Embedder(self.host))
        key = f"{fingerprint(plan.adapter.path, lasting=False)}-{reference.digest()}"
        kept = self._kept.get(key, {})
        if missing := [layer for layer in (*plan.scales, *plan.pushes) if layer.index not in kept]:
            kept = {**kept, **key_values(Adapter(plan.adapter), *reference.combined(), reference.uncond, missing)}
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_UNITS or (len(self._kept) > 1 and self._kept_bytes() > KEPT_BYTES):
            self._kept.popitem(last=False)
        return kept

    def _kept_bytes(self) -> int:
        return sum(tensor.nbytes for kept in self._kept.values() for pair in kept.values() for tensor in pair)


def _routed(unit: StyleUnit, layers: tuple[Layer, ...]) -> dict[Layer, float]:
    with placed(field="blocks"):
        return route(unit, layers)


@torch.no_grad()
def key_values(adapter: Adapter, cond: Tensor, shares: Tensor, uncond: Tensor, layers: Sequence[Layer]) -> KeyValues:
    """K and V of the given layers; their weights alone are read, used once and dropped.

    cond: clip_image_embeds of n pictures, (n, width) or (n, patches + 1, width); uncond: those of no picture, (1, …).
    The n pictures' tokens stand side by side in one softmax; the uncond tokens are repeated to the same number. Each
    picture's values are multiplied by its share, (n,), in conditional rows.
    Returned tensors are (2, n·tokens, inner): row 0 unconditional, row 1 conditional. Raises CheckpointError when the
    adapter's numbers are none, or too large to be used.
    """
    project = adapter.projection()
    image_prompt_embeds = project(cond).flatten(0, 1)  # (n·tokens, cross_attention_dim)
    uncond_image_prompt_embeds = project(uncond)[0].repeat(cond.shape[0], 1)
    both = torch.stack([uncond_image_prompt_embeds, image_prompt_embeds])
    found = {layer.index: (both @ adapter.to_k_ip(layer).T, both @ adapter.to_v_ip(layer).T) for layer in layers}
    if (shares != 1).any():
        of_tokens = shares.repeat_interleave(len(image_prompt_embeds) // len(shares))[:, None]
        for _, value in found.values():
            value[1] *= of_tokens
    if not all(tensor.abs().amax() <= LARGEST for pair in found.values() for tensor in pair):  # nor is NaN
        raise CheckpointError(
            f"{adapter.info.path.name} is damaged: it produces keys or values that no trained adapter has."
        )
    return found


def _due_at(units: Sequence[ImageKeyValue | LowRank | Attending]) -> Callable[[float], bool]:
    """Whether some unit acts at a progress. The layers of a unit differ in little: each kind is asked once."""
    kinds = {(unit.window, unit.curve): unit for unit in units}
    return lambda progress: any(unit.factor(progress) for unit in kinds.values())
