"""The UNet that is measured, one attention of it, and random adapters that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from lib_instantstyle.units.blocks import attention_layers

EMBED_DIM = 1280  # of ViT-bigG
TEXT_TOKENS = 77


@dataclass(frozen=True)
class Size:
    """Widths of a UNet with SDXL's blocks and its 70 layers."""

    name: str
    channels: tuple[int, int, int]
    heads: tuple[int, int, int]
    context: int
    pooled: int


SIZES = {
    size.name: size
    for size in (
        Size("sdxl", (320, 640, 1280), (5, 10, 20), 2048, 1280),
        Size("half", (160, 320, 640), (5, 5, 10), 1024, 640),
        Size("small", (64, 128, 256), (2, 2, 4), 512, 256),
        Size("tiny", (32, 64, 64), (1, 1, 2), 64, 64),
    )
}

# Image encoders by name: what the adapter's time to the first step is measured with. Random weights cost the same.
ENCODERS: dict[str, dict[str, int]] = {
    "small": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1},
    "vit-h": {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16},
    "vit-bigg": {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 16},
}


def make_unet(size: Size, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """A UNet with random weights; built in place, so that SDXL's own size needs no second copy."""
    torch.manual_seed(0)
    plain = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            unet = UNet2DConditionModel(
                block_out_channels=size.channels,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=[1, 2, 10],
                attention_head_dim=size.heads,
                cross_attention_dim=size.context,
                use_linear_projection=True,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=size.pooled + 6 * 256,
            )
    finally:
        torch.set_default_dtype(plain)
    return unet.eval().requires_grad_(False)


def make_attention(size: Size, level: int, device: torch.device, dtype: torch.dtype) -> Attention:
    """A cross attention of that level of a UNet by itself."""
    width, heads = size.channels[level], size.heads[level]
    torch.manual_seed(0)
    attn2 = Attention(width, cross_attention_dim=size.context, heads=heads, dim_head=width // heads)
    return attn2.to(device, dtype).eval().requires_grad_(False)


def adapter_tensors(unet: nn.Module, tokens: int = 4, device: str = "cpu") -> dict[str, dict[str, Tensor]]:
    """A base adapter for `unet` in the published precision, nested as diffusers takes it; on `meta` only its shapes."""
    made = None if device == "meta" else torch.Generator().manual_seed(tokens)
    layers = attention_layers(unet)
    context = next(iter(layers.values())).to_k.weight.shape[1]
    shapes = {"proj.weight": (tokens * context, EMBED_DIM), "proj.bias": (tokens * context,)}
    shapes |= {"norm.weight": (context,), "norm.bias": (context,)}
    of_layers = {
        f"{2 * layer.index + 1}.{kind}.weight": tuple(attn2.to_k.weight.shape)
        for layer, attn2 in layers.items()
        for kind in ("to_k_ip", "to_v_ip")
    }
    groups = {"image_proj": shapes, "ip_adapter": of_layers}
    return {
        group: {name: _random(shape, made, device) for name, shape in named.items()} for group, named in groups.items()
    }


def _random(shape: tuple[int, ...], made: torch.Generator | None, device: str) -> Tensor:
    return (torch.randn(shape, generator=made, device=device) / shape[-1] ** 0.5).half()


def write_adapter(path: Path, groups: dict[str, dict[str, Tensor]]) -> None:
    """The adapter in the published format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{group}.{name}": x for group, tensors in groups.items() for name, x in tensors.items()}, str(path))


def write_encoder(folder: Path, name: str = "small") -> None:
    """An image encoder with ViT-bigG's projection width, in half precision as published."""
    shape: dict[str, Any] = {**ENCODERS[name], "projection_dim": EMBED_DIM, "patch_size": 14}
    with torch.no_grad():
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**shape))
    model.half().save_pretrained(str(folder), safe_serialization=True)


def unet_inputs(unet: UNet2DConditionModel, size: Size, rows: int, pixels: int) -> dict[str, Any]:
    """Arguments of one UNet call with guidance: the first half of the rows unconditional."""
    like = next(unet.parameters())
    made = {"device": like.device, "dtype": like.dtype}
    return {
        "sample": torch.randn(rows, 4, pixels // 8, pixels // 8, **made),
        "timestep": torch.tensor(500, device=like.device),
        "encoder_hidden_states": torch.randn(rows, TEXT_TOKENS, size.context, **made),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(rows, size.pooled, **made),
            "time_ids": torch.randn(rows, 6, **made),
        },
    }


def marks(rows: int) -> tuple[bool, ...]:
    """Which rows are conditional: the second half."""
    return tuple(row >= rows // 2 for row in range(rows))
