"""The world's networks: real diffusers and transformers classes in the structure of SDXL's, with small widths."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from .drawing import SIDE

CLIP_WIDTH, OPEN_CLIP_WIDTH = 32, 256  # of the two text towers; the second is the smallest that open_clip knows by name
OPEN_CLIP_ARCH = "ViT-S-32-alt"
VOCABULARY, CONTEXT_LENGTH = 49408, 77
CLIP_LAYERS, OPEN_CLIP_LAYERS = 12, 10  # as the checkpoint's layout wants them
TRAINED_LAYERS = 3  # of each text tower; the others pass their input on unchanged
UNET_WIDTHS, HEAD_WIDTH, SIZE_WIDTH = (64, 64, 128), 32, 256
DEPTHS, TRAINED_DEPTHS = (2, 10), (1, 3)  # SDXL's transformer layers by level, and those trained; the others are idle
VAE_BLOCKS = 0  # residual layers of a level in the encoder; the decoder has one more
VAE_WIDTHS, VAE_SCALE = (96, 96, 96, 96), 1.0  # three channels a group: see first_guess
GROUPS = 32  # of every group norm, as the WebUI's model code has it


def clip_text_tower(vocabulary: int = VOCABULARY, layers: int = CLIP_LAYERS) -> CLIPTextModel:
    return CLIPTextModel(_text_config(vocabulary, layers, CLIP_WIDTH, heads=4, act="quick_gelu"))


def open_clip_text_tower(vocabulary: int = VOCABULARY, layers: int = OPEN_CLIP_LAYERS) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(_text_config(vocabulary, layers, OPEN_CLIP_WIDTH, heads=4, act="gelu"))


def _text_config(vocabulary: int, layers: int, width: int, *, heads: int, act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_act=act,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )


def image_encoder() -> CLIPVisionModelWithProjection:
    """A vision tower of 64 patches, in the joint space of the second text tower."""
    config = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        projection_dim=OPEN_CLIP_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=16,
        hidden_act="gelu",
    )
    return CLIPVisionModelWithProjection(config)


def vae() -> AutoencoderKL:
    """SDXL's autoencoder with narrow levels: eight pixels of a side become one of four-channel latents."""
    return AutoencoderKL(
        block_out_channels=VAE_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=VAE_BLOCKS,
        norm_num_groups=GROUPS,
        latent_channels=4,
        sample_size=SIDE,
        scaling_factor=VAE_SCALE,
    )


def unet(depths: tuple[int, int] = DEPTHS) -> UNet2DConditionModel:
    """SDXL's UNet with narrow levels; its 70 cross-attention layers at SDXL's own depths."""
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=UNET_WIDTHS,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, *depths],
        attention_head_dim=tuple(width // HEAD_WIDTH for width in UNET_WIDTHS),  # the number of heads, despite its name
        cross_attention_dim=CLIP_WIDTH + OPEN_CLIP_WIDTH,
        norm_num_groups=GROUPS,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=SIZE_WIDTH,
        projection_class_embeddings_input_dim=OPEN_CLIP_WIDTH + 6 * SIZE_WIDTH,
    )
