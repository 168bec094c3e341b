"""diffusers' own IP-Adapter on the UNet that is measured, by what its pipelines do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.unet_loader_utils import _maybe_expand_lora_scales
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from safetensors import safe_open
from torch import Tensor, nn

from .models import EMBED_DIM

# `set_ip_adapter_scale` of the same routing as our presets.
SCALES: dict[str, dict[str, Any] | float] = {
    "style": {"up": {"block_0": [0.0, 1.0, 0.0]}},
    "style + layout": {"down": {"block_2": [0.0, 1.0]}, "up": {"block_0": [0.0, 1.0, 0.0]}},
    "all layers": 1.0,
}


class DiffusersAdapter:
    """Loaded into a UNet at once; `enter` puts it in place with its scales, `leave` gives the UNet back as it was."""

    def __init__(
        self, unet: UNet2DConditionModel, inputs: dict[str, Any], adapter: dict[str, dict[str, Tensor]], units: int = 1
    ) -> None:
        self._unet, self._inputs, self._units = unet, inputs, units
        self._plain = dict(unet.attn_processors)
        like = next(unet.parameters())
        unet._load_ip_adapter_weights([adapter] * units)
        unet.to(like.device, like.dtype)
        self.processors, self.projection = dict(unet.attn_processors), unet.encoder_hid_proj
        self.leave()

    @property
    def resident(self) -> int:
        """Bytes of the whole adapter, which stay in the UNet whatever is scaled to nothing."""
        return bytes_of([self.projection, *(one for one in self.processors.values() if isinstance(one, nn.Module))])

    def enter(self, scales: dict[str, Any] | float) -> None:
        _scale(self._unet, self.processors, scales, self._units)
        self._unet.set_attn_processor(dict(self.processors))
        self._unet.encoder_hid_proj, self._unet.config.encoder_hid_dim_type = self.projection, "ip_image_proj"
        like = self._inputs["sample"]
        embeds = torch.ones(like.shape[0], 1, EMBED_DIM, device=like.device, dtype=like.dtype)
        self._inputs["added_cond_kwargs"]["image_embeds"] = [embeds] * self._units

    def leave(self) -> None:
        self._unet.set_attn_processor(dict(self._plain))
        self._unet.encoder_hid_proj, self._unet.config.encoder_hid_dim_type = None, None
        self._inputs["added_cond_kwargs"].pop("image_embeds", None)


def _scale(unet: Any, processors: dict[str, Any], scales: dict[str, Any] | float, units: int) -> None:
    expanded = _maybe_expand_lora_scales(unet, [scales], default_scale=0.0)[0]
    by_prefix = expanded if isinstance(expanded, dict) else {"": expanded}
    for name, processor in processors.items():
        if hasattr(processor, "scale"):
            processor.scale = [next((x for prefix, x in by_prefix.items() if name.startswith(prefix)), 0.0)] * units


def loaded(unet: Any, path: Path, device: torch.device, dtype: torch.dtype) -> list[nn.Module]:
    """The modules that `load_ip_adapter` puts into a UNet from a file, on its device and in its precision."""
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    with safe_open(str(path), "pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no dict
            group, _, key = name.partition(".")
            groups[group][key] = file.get_tensor(name)
    processors = unet._convert_ip_adapter_attn_to_diffusers([groups])
    projection = unet._convert_ip_adapter_image_proj_to_diffusers(groups["image_proj"], low_cpu_mem_usage=False)
    modules = [projection, *(one for one in processors.values() if isinstance(one, nn.Module))]
    return [module.to(device, dtype) for module in modules]


def bytes_of(modules: list[nn.Module]) -> int:
    """What stays in the UNet as long as the adapter is loaded."""
    return sum(x.numel() * x.element_size() for module in modules for x in module.parameters())


def attention_processor(width: int, context: int, tokens: int, units: int, like: Tensor) -> IPAdapterAttnProcessor2_0:
    """diffusers' processor of one cross attention, for units of a scale of 1."""
    made = IPAdapterAttnProcessor2_0(width, context, num_tokens=[tokens] * units, scale=[1.0] * units)
    return made.to(like.device, like.dtype).requires_grad_(False)
