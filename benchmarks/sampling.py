"""How much longer a step takes with style: ours by preset and number of units, and diffusers' IP-Adapter beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from lib_instantstyle.core.units import StyleUnit
from lib_instantstyle.session import StyleSession
from tests.tiny.host import TinyHost

from .models import EMBED_DIM
from .timing import Subject

STYLE_SCALES = {"up": {"block_0": [0.0, 1.0, 0.0]}}


@dataclass
class Bench:
    """A UNet call with guidance, and the session that styles it."""

    unet: UNet2DConditionModel
    inputs: dict[str, Any]
    steps: int  # UNet calls in one measurement; laying out keys and values happens in the first of them
    folder: Path

    def __post_init__(self) -> None:
        self.session = StyleSession(TinyHost(self.unet, self.folder, self.folder / "cache", EMBED_DIM))
        rows = self.inputs["sample"].shape[0]
        self.rows = tuple(row >= rows // 2 for row in range(rows))

    @torch.no_grad()
    def run(self) -> None:
        for _ in range(self.steps):
            self.unet(**self.inputs)

    def plain(self) -> Subject:
        return Subject(lambda: None, lambda: None)

    def ours(self, *units: StyleUnit) -> Subject:
        """The units planned now, attached when it is their turn."""
        plans = self.session.plan(units)

        def enter() -> None:
            self.session.attach(plans)
            self.session.call.cond_rows = self.rows

        return Subject(enter, self.session.detach)

    def diffusers(self, adapter: dict[str, dict[str, Tensor]], scales: dict[str, Any] | float) -> Subject:
        """diffusers' own IP-Adapter with `set_ip_adapter_scale`'s meaning of `scales`."""
        plain = dict(self.unet.attn_processors)
        self.unet._load_ip_adapter_weights([adapter])
        self.unet.to(next(self.unet.parameters()).device, next(self.unet.parameters()).dtype)
        processors, projection = dict(self.unet.attn_processors), self.unet.encoder_hid_proj
        _scale(self.unet, processors, scales)
        self._diffusers_off(plain)

        def enter() -> None:
            self.unet.set_attn_processor(dict(processors))
            self.unet.encoder_hid_proj, self.unet.config.encoder_hid_dim_type = projection, "ip_image_proj"
            like = self.inputs["sample"]
            embeds = torch.ones(like.shape[0], 1, EMBED_DIM, device=like.device, dtype=like.dtype)
            self.inputs["added_cond_kwargs"]["image_embeds"] = [embeds]

        return Subject(enter, lambda: self._diffusers_off(plain))

    def _diffusers_off(self, plain: dict[str, Any]) -> None:
        self.unet.set_attn_processor(dict(plain))
        self.unet.encoder_hid_proj, self.unet.config.encoder_hid_dim_type = None, None
        self.inputs["added_cond_kwargs"].pop("image_embeds", None)


def _scale(unet: UNet2DConditionModel, processors: dict[str, Any], scales: dict[str, Any] | float) -> None:
    from diffusers.loaders.unet_loader_utils import _maybe_expand_lora_scales

    expanded = _maybe_expand_lora_scales(unet, [scales], default_scale=0.0)[0]
    by_prefix = expanded if isinstance(expanded, dict) else {"": expanded}
    for name, processor in processors.items():
        if hasattr(processor, "scale"):
            processor.scale = [next((x for prefix, x in by_prefix.items() if name.startswith(prefix)), 0.0)]


def subjects(bench: Bench, adapter: dict[str, dict[str, Tensor]]) -> dict[str, Subject]:
    """What is compared, the plain UNet first."""
    unit: Callable[..., StyleUnit] = lambda seed=0, **fields: StyleUnit(image=(picture(seed),), **fields)  # noqa: E731
    return {
        "plain UNet": bench.plain(),
        "style, one unit": bench.ours(unit()),
        "style + layout, one unit": bench.ours(unit(preset="style_and_layout")),
        "style, three units": bench.ours(unit(0), unit(1), unit(2)),
        "original (all 70 layers), one unit": bench.ours(unit(preset="original")),
        "diffusers, style": bench.diffusers(adapter, STYLE_SCALES),
        "diffusers, all layers": bench.diffusers(adapter, 1.0),
    }


def picture(seed: int) -> Image.Image:
    """A picture that is another one for every seed."""
    return Image.new("RGB", (32, 32), (seed * 40 % 256, 90, 160))
