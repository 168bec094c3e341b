"""The UNet that is measured, and random adapters that fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from lib_instantstyle.core.blocks import attention_layers

EMBED_DIM = 1280  # of ViT-bigG


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
    )
}


def make_unet(size: Size, device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """A UNet with random weights; built in place, so that SDXL's own size needs no second copy."""
    torch.manual_seed(0)
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
    return unet.to(dtype).eval().requires_grad_(False)


def write_adapter(path: Path, unet: nn.Module, tokens: int = 4) -> dict[str, dict[str, Tensor]]:
    """A base adapter for `unet` in the published format and precision; also returned nested, as diffusers takes it."""
    made = torch.Generator().manual_seed(tokens)
    layers = attention_layers(unet)
    context = next(iter(layers.values())).to_k.weight.shape[1]
    shapes = {"proj.weight": (tokens * context, EMBED_DIM), "proj.bias": (tokens * context,)}
    projection = {name: _random(made, *shape) for name, shape in shapes.items()}
    projection |= {"norm.weight": torch.ones(context).half(), "norm.bias": _random(made, context)}
    names = (
        (f"{2 * layer.index + 1}.{kind}.weight", attn2.to_k.weight.shape)
        for layer, attn2 in layers.items()
        for kind in ("to_k_ip", "to_v_ip")
    )
    adapter = {name: _random(made, *shape) for name, shape in names}
    groups = {"image_proj": projection, "ip_adapter": adapter}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{group}.{name}": x for group, tensors in groups.items() for name, x in tensors.items()}, str(path))
    return groups


def _random(made: torch.Generator, *shape: int) -> Tensor:
    return (torch.randn(shape, generator=made) / shape[-1] ** 0.5).half()


def write_encoder(folder: Path) -> None:
    """A shallow encoder with ViT-bigG's projection width: what it costs is not what is measured."""
    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, projection_dim=EMBED_DIM
    )
    CLIPVisionModelWithProjection(config).save_pretrained(str(folder), safe_serialization=True)


def unet_inputs(unet: UNet2DConditionModel, size: Size, rows: int, pixels: int) -> dict[str, object]:
    """Arguments of one UNet call with guidance: the first half of the rows unconditional."""
    like = next(unet.parameters())
    made = {"device": like.device, "dtype": like.dtype}
    return {
        "sample": torch.randn(rows, 4, pixels // 8, pixels // 8, **made),
        "timestep": torch.tensor(500, device=like.device),
        "encoder_hidden_states": torch.randn(rows, 77, size.context, **made),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(rows, size.pooled, **made),
            "time_ids": torch.randn(rows, 6, **made),
        },
    }
