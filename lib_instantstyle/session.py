"""One style job: plan (check everything), attach (compute K and V, put the hooks in place), detach.

Speaks to a Host only, and holds what a job needs between its sampling passes.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from .core.attention import ImageKeyValue, ModelCall, StyledLayer
from .core.blocks import Layer, attention_layers
from .core.checkpoint import Adapter, AdapterInfo
from .core.clip_vision import EncoderInfo, Feature, ImageEncoder
from .core.content import METHODS
from .core.embed_store import embeds_key, fingerprint
from .core.errors import IncompatibleModelError, InstantStyleError
from .core.pictures import Picture, read_picture
from .core.routing import route
from .core.units import StyleUnit
from .hosts.protocol import Host

KEPT_UNITS = 16  # units whose keys and values stay in memory between jobs, under 1 MiB each for style alone

log = logging.getLogger("InstantStyle")

KeyValues = dict[int, tuple[Tensor, Tensor]]  # layer index → K and V, each (2, tokens, inner)


@dataclass(frozen=True, eq=False)
class UnitPlan:
    """A unit with everything it names found and checked; nothing is loaded yet."""

    number: int  # counted from 1
    unit: StyleUnit
    pictures: tuple[Picture, ...]
    adapter: AdapterInfo
    encoder: EncoderInfo
    scales: dict[Layer, float]  # without zeros

    @property
    def described(self) -> StyleUnit:
        """The unit with the adapter that was really chosen and its pictures by hash: what an infotext says."""
        hashes = tuple(picture.hash for picture in self.pictures)
        return replace(self.unit, adapter=self.adapter.name, image=hashes)


@dataclass
class StyleSession:
    """Holds at most one job's hooks. `detach` is idempotent and safe at any time."""

    host: Host
    call: ModelCall = field(default_factory=ModelCall)
    _layers: list[StyledLayer] = field(default_factory=list)
    _unet: nn.Module | None = None
    _kept: OrderedDict[str, KeyValues] = field(default_factory=OrderedDict)

    @property
    def attached_to(self) -> nn.Module | None:
        """The UNet that carries our hooks now."""
        return self._unet

    def plan(self, units: Sequence[StyleUnit]) -> tuple[UnitPlan, ...]:
        """Check every enabled unit whole against the live UNet and the installed files; errors name unit and field."""
        enabled = [(number, unit) for number, unit in enumerate(units, 1) if unit.enabled]
        return tuple(self._numbered_plan(number, unit) for number, unit in enabled)

    def _numbered_plan(self, number: int, unit: StyleUnit) -> UnitPlan:
        try:
            return self._plan(number, unit)
        except InstantStyleError as error:
            raise error.at(unit=number) from error.__cause__

    def _plan(self, number: int, unit: StyleUnit) -> UnitPlan:
        unit.check()
        pictures = tuple(read_picture(source) for source in unit.image)
        modules = attention_layers(self.host.unet())
        scales = _routed(unit, tuple(modules))
        adapter = self.host.adapter(unit.adapter)
        adapter.check_fits(modules)
        adapter.check_carries(scales)
        if unit.removes_content:
            self._check_content(adapter)
        encoder = self.host.encoder(adapter.feature)
        return UnitPlan(number, unit, pictures, adapter, encoder, {at: x for at, x in scales.items() if x})

    def _check_content(self, adapter: AdapterInfo) -> None:
        width = self.host.content_text_width()
        if adapter.feature != Feature("pooled", width):
            raise IncompatibleModelError(
                f"A content prompt needs an adapter whose picture embedding lies in the CLIP space of the checkpoint's "
                f"second text encoder (width {width}): ip-adapter_sdxl. {adapter.path.name} reads "
                f"{adapter.feature.encoder_name}. Choose that adapter, or leave the content prompt empty.",
                "content_prompt",
            )

    def attach(self, plans: Sequence[UnitPlan]) -> None:
        """Compute what is missing and put the hooks on the live UNet; whatever was attached before is gone."""
        self.detach()
        routed: dict[Layer, list[ImageKeyValue]] = {}
        for plan in plans:
            for layer, contribution in self._contributions(plan).items():
                routed.setdefault(layer, []).append(contribution)
        if routed:
            self._hook(plans, routed)

    def _hook(self, plans: Sequence[UnitPlan], routed: dict[Layer, list[ImageKeyValue]]) -> None:
        unet = self.host.unet()
        modules = attention_layers(unet)
        for plan in plans:  # it may be another checkpoint than the one planned for: hires fix, refiner
            plan.adapter.check_fits(modules)
        self._unet = unet
        for layer, contributions in routed.items():
            styled = StyledLayer(modules[layer], tuple(contributions), self.call)
            self._layers.append(styled)
            styled.attach()

    def detach(self) -> None:
        """Take every hook out of the UNet that carries them."""
        while self._layers:
            self._layers.pop().detach()
        self._unet = None

    def _contributions(self, plan: UnitPlan) -> dict[Layer, ImageKeyValue]:
        if not plan.scales:
            return {}
        try:
            key_values = self._key_values(plan)
        except InstantStyleError as error:
            raise error.at(unit=plan.number) from error.__cause__
        window = plan.unit.window
        return {layer: ImageKeyValue(*key_values[layer.index], scale, window) for layer, scale in plan.scales.items()}

    def _key_values(self, plan: UnitPlan) -> KeyValues:
        """K and V of a unit's layers, kept by what they were computed from; only the missing layers are read."""
        cond, uncond = self._clip_image_embeds(plan)
        cond = self._without_content(plan.unit, cond)
        key = _digest(fingerprint(plan.adapter.path), cond)
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_UNITS:
            self._kept.popitem(last=False)
        if missing := [layer for layer in plan.scales if layer.index not in kept]:
            kept.update(key_values(Adapter(plan.adapter), cond, uncond, missing))
        return kept

    def _without_content(self, unit: StyleUnit, clip_image_embeds: Tensor) -> Tensor:
        if not unit.removes_content:
            return clip_image_embeds
        text_embeds = self.host.content_text_embeds(unit.content_prompt)
        return METHODS[unit.content_method](clip_image_embeds, text_embeds, unit.content_scale)

    def _clip_image_embeds(self, plan: UnitPlan) -> tuple[Tensor, Tensor]:
        """(n, …) embeddings of the pictures, and (1, …) of no picture: zeros when pooled, else the grey one's."""
        wanted: dict[str, Picture | None] = {picture.hash: picture for picture in plan.pictures}
        if plan.adapter.feature.kind == "hidden":
            wanted["grey"] = None
        embeds = self._encoded(wanted, plan.encoder, plan.adapter.feature)
        cond = torch.cat([embeds[picture.hash] for picture in plan.pictures])
        return cond, embeds["grey"] if "grey" in wanted else torch.zeros_like(cond[:1])

    def _encoded(self, wanted: dict[str, Picture | None], info: EncoderInfo, feature: Feature) -> dict[str, Tensor]:
        """Embeddings by name; the encoder is loaded only when the store lacks one."""
        store = self.host.embed_store
        keys = {name: embeds_key(name, info, feature) for name in wanted}
        missing = [name for name, key in keys.items() if store.get(key) is None]
        found = {name: embeds for name, key in keys.items() if (embeds := store.get(key)) is not None}
        if missing:
            for name, embeds in self._encode({name: wanted[name] for name in missing}, info, feature).items():
                store.put(keys[name], embeds)
                found[name] = embeds
        return found

    def _encode(self, pictures: dict[str, Picture | None], info: EncoderInfo, feature: Feature) -> dict[str, Tensor]:
        device, dtype = self.host.encoder_device()
        try:
            with self.host.room_for_encoder():
                return _encode_all(ImageEncoder(info, device, dtype), pictures, feature)
        except torch.cuda.OutOfMemoryError:
            log.warning("%s does not fit into the device's memory; it runs on the CPU instead.", info.path.name)
        return _encode_all(ImageEncoder(info, torch.device("cpu"), torch.float32), pictures, feature)


def _encode_all(encoder: ImageEncoder, pictures: dict[str, Picture | None], feature: Feature) -> dict[str, Tensor]:
    return {
        name: encoder.encode(picture.image, feature) if picture else encoder.encode_grey(feature)
        for name, picture in pictures.items()
    }


def _routed(unit: StyleUnit, layers: tuple[Layer, ...]) -> dict[Layer, float]:
    try:
        return route(unit, layers)
    except InstantStyleError as error:
        raise error.at(field="blocks") from None


@torch.no_grad()
def key_values(adapter: Adapter, cond: Tensor, uncond: Tensor, layers: Sequence[Layer]) -> KeyValues:
    """K and V of the given layers; their weights alone are read, used once and dropped.

    cond: clip_image_embeds of n pictures, (n, width) or (n, patches + 1, width); uncond: those of no picture, (1, …).
    The n pictures' tokens stand side by side in one softmax; the uncond tokens are repeated to the same number.
    Returned tensors are (2, n·tokens, inner): row 0 unconditional, row 1 conditional.
    """
    project = adapter.projection()
    image_prompt_embeds = project(cond).flatten(0, 1)  # (n·tokens, cross_attention_dim)
    uncond_image_prompt_embeds = project(uncond)[0].repeat(cond.shape[0], 1)
    both = torch.stack([uncond_image_prompt_embeds, image_prompt_embeds])
    return {layer.index: (both @ adapter.to_k_ip(layer).T, both @ adapter.to_v_ip(layer).T) for layer in layers}


def _digest(adapter: str, embeds: Tensor) -> str:
    return hashlib.sha256(adapter.encode() + embeds.contiguous().numpy().tobytes()).hexdigest()
