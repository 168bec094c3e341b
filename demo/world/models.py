"""The world's CLIP: real transformers classes in the structure that an SDXL checkpoint has, with small widths."""

from __future__ import annotations

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from .drawing import SIDE

CLIP_WIDTH, OPEN_CLIP_WIDTH = 32, 256  # of the two text towers; the second is the smallest that open_clip knows by name
VOCABULARY, CONTEXT_LENGTH = 49408, 77
CLIP_LAYERS, OPEN_CLIP_LAYERS = 12, 10  # as the checkpoint's layout wants them
TRAINED_LAYERS = 3  # of each text tower; the others pass their input on unchanged


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
