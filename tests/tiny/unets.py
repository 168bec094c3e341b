"""UNets with the block layout of SDXL and of SD 1.5, a few channels wide."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from .attention import CrossAttention

CONTEXT = 32  # width of the text tokens, 2048 in SDXL
POOLED, TIME = 16, 8

# ldm name of every cross-attention block in the order they run, and its level: 0 shallow, 1 deep.
LDM_BLOCKS = (
    *((f"input_blocks.{number}.1", level) for number, level in ((4, 0), (5, 0), (7, 1), (8, 1))),
    ("middle_block.1", 1),
    *((f"output_blocks.{number}.1", level) for number, level in ((0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0))),
)


def sdxl_unet(depths: tuple[int, int] = (1, 2), seed: int = 0, pooled: int = POOLED) -> UNet2DConditionModel:
    """A diffusers UNet with SDXL's eleven blocks; (2, 10) are SDXL's own depths, which give seventy layers."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, *depths],
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=CONTEXT,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME,
        projection_class_embeddings_input_dim=pooled + 6 * TIME,
    )
    return unet.eval().requires_grad_(False)


def sd15_unet() -> UNet2DConditionModel:
    """A diffusers UNet with the sixteen blocks of SD 1.5."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8, 16, 16),
        attention_head_dim=2,
        cross_attention_dim=CONTEXT,
        norm_num_groups=4,
    )
    return unet.eval().requires_grad_(False)


def unet_inputs(rows: int, seed: int = 1) -> dict[str, object]:
    """Arguments of one SDXL UNet call, every row different."""
    made = torch.Generator().manual_seed(seed)
    added = {
        "text_embeds": torch.randn(rows, POOLED, generator=made),
        "time_ids": torch.full((rows, 6), 16.0),
    }
    return {
        "sample": torch.randn(rows, 4, 16, 16, generator=made),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(rows, 7, CONTEXT, generator=made),
        "added_cond_kwargs": added,
    }


class TransformerBlock(nn.Module):
    """Self attention and cross attention with residuals, under ldm's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads=2)
        self.attn2 = CrossAttention(width, CONTEXT, heads=2)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.attn1(x) + x
        return self.attn2(x, context=context) + x


class SpatialTransformer(nn.Module):
    """Some transformer blocks of one width, under ldm's name."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width) for _ in range(depth))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for block in self.transformer_blocks:
            x = block(x, context)
        return x


class LdmUnet(nn.Module):
    """The attention skeleton of SDXL under ldm's names: its transformers one after another, nothing between them."""

    def __init__(self, depths: tuple[int, int] = (1, 2), width: int = 16, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.input_blocks = nn.ModuleList(nn.ModuleList([nn.Identity()]) for _ in range(9))
        self.middle_block = nn.ModuleList([nn.Identity()])
        self.output_blocks = nn.ModuleList(nn.ModuleList([nn.Identity()]) for _ in range(9))
        for name, level in LDM_BLOCKS:
            self.get_submodule(name.rpartition(".")[0]).append(SpatialTransformer(width, depths[level]))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        for name, _ in LDM_BLOCKS:
            x = self.get_submodule(name)(x, context)
        return x
