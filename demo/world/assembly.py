"""The world's SDXL pipeline, put together from the packed weights."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import nn

from lib_instantstyle.units.blocks import SDXL_BLOCKS, SDXL_DEPTHS, number_layers

from . import models, packing, prompts, words
from .clip import trained_towers

NETS = packing.WEIGHTS / "nets.safetensors"  # UNet and autoencoder
ADAPTER = packing.WEIGHTS / "adapter.safetensors"
COMPACT_DEPTHS = tuple(models.TRAINED_DEPTHS[depth == max(SDXL_DEPTHS)] for depth in SDXL_DEPTHS)  # of each block


def schedule() -> EulerDiscreteScheduler:
    """SDXL's noise schedule."""
    return EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)


def pipeline(*, compact: bool = False, weights: Path = NETS) -> StableDiffusionXLPipeline:
    """The whole pipeline, on the CPU; `compact`: without the UNet's idle layers, for training on it."""
    state = packing.read(weights)
    unet = models.unet(models.TRAINED_DEPTHS if compact else models.DEPTHS)
    unet.load_state_dict(state["unet"] if compact else with_idle_layers(state["unet"]))
    vae = models.vae()
    vae.load_state_dict(state["vae"])
    small, large = prompts.full_towers(trained_towers(), models.VOCABULARY)
    pipe = StableDiffusionXLPipeline(
        vae=_frozen(vae),
        text_encoder=small,
        text_encoder_2=large,
        tokenizer=words.tokenizer(),
        tokenizer_2=words.tokenizer(),
        unet=_frozen(unet),
        scheduler=schedule(),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _frozen(net: Any) -> Any:
    return net.eval().requires_grad_(False)


@lru_cache
def _full_unet() -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in models.unet().state_dict().items()}


def with_idle_layers(state: packing.State) -> packing.State:
    """The UNet's tensors with layers behind the trained ones that are all zero, and so pass their input on."""
    return {name: state[name] if name in state else torch.zeros(shape) for name, shape in _full_unet().items()}


@torch.no_grad()
def fold_sizes(unet: UNet2DConditionModel, time_ids: torch.Tensor) -> None:
    """Make a UNet that was trained with one and the same sizes and crops not read them any more."""
    first: nn.Linear = unet.add_embedding.linear_1
    columns = first.weight[:, models.OPEN_CLIP_WIDTH :]
    first.bias += columns @ unet.add_time_proj(time_ids).flatten()
    columns.zero_()


def spread_adapter(state: packing.State) -> packing.State:
    """An adapter of the compact UNet under the numbers of SDXL's seventy layers, the idle ones zero."""
    compact = {(x.block, x.depth): x for x in number_layers(SDXL_BLOCKS, COMPACT_DEPTHS)}
    spread = {name: tensor for name, tensor in state.items() if not name.startswith("ip_adapter.")}
    for layer in number_layers(SDXL_BLOCKS, SDXL_DEPTHS):
        here = compact.get((layer.block, layer.depth)) or compact[layer.block, 0]
        for name in ("to_k_ip", "to_v_ip"):
            trained = state[f"ip_adapter.{2 * here.index + 1}.{name}.weight"]
            idle = here.depth != layer.depth
            spread[f"ip_adapter.{2 * layer.index + 1}.{name}.weight"] = torch.zeros_like(trained) if idle else trained
    return spread
