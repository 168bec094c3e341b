"""Tiny real parts: UNets, adapters, encoders and a host, as small as their real classes allow."""

from .adapters import base_adapter, plus_adapter, save_adapter
from .attention import CrossAttention, cross_attention
from .clip import (
    SHARD_INDEX,
    clip_model,
    open_clip_of_both,
    open_clip_tensors,
    open_clip_text_tensors,
    save_shards,
    text_model,
    vision_model,
)
from .host import TinyHost
from .pictures import encoded, picture
from .unets import CONTEXT, LdmUnet, sd15_unet, sdxl_unet, unet_inputs

__all__ = [
    "CONTEXT",
    "SHARD_INDEX",
    "CrossAttention",
    "LdmUnet",
    "TinyHost",
    "base_adapter",
    "clip_model",
    "cross_attention",
    "encoded",
    "open_clip_of_both",
    "open_clip_tensors",
    "open_clip_text_tensors",
    "picture",
    "plus_adapter",
    "save_adapter",
    "save_shards",
    "sd15_unet",
    "sdxl_unet",
    "text_model",
    "unet_inputs",
    "vision_model",
]
