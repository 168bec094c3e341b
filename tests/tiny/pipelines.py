"""A diffusers SDXL pipeline of real classes, a few channels wide: towers, tokenizers, VAE, UNet, ControlNet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, EulerDiscreteScheduler, StableDiffusionXLPipeline
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .clip import POOLED
from .unets import CONTEXT, sdxl_unet

NARROW = 12  # width of the first text tower; the second one's differs, by which single files are told apart
SIDE = 64  # pixels; latents are a quarter of it
_WORDS = ["a", "cat", "rabbit", "roof", "red", "on", "the", "!", ",", "."]
_START, _END = "<|startoftext|>", "<|endoftext|>"


def tiny_pipeline(folder: Path, depths: tuple[int, int] = (1, 2), seed: int = 0) -> StableDiffusionXLPipeline:
    """An SDXL pipeline with random weights, the same for the same seed; its tokenizer is written to `folder`."""
    words = tokenizer(folder)
    torch.manual_seed(seed)
    pipe = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_tower(CLIPTextModel, NARROW, len(words)),
        text_encoder_2=_tower(CLIPTextModelWithProjection, CONTEXT - NARROW, len(words)),
        tokenizer=words,
        tokenizer_2=words,
        unet=sdxl_unet(depths, seed, pooled=POOLED),
        scheduler=EulerDiscreteScheduler(),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_controlnet(unet: nn.Module, seed: int = 0) -> ControlNetModel:
    """A ControlNet for `unet` that has an effect: what training starts at zero is random."""
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8, 8))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return net.eval().requires_grad_(False)


def tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's own tokenizer on single letters and a few words."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in (word for word in _WORDS if len(word) > 1):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts = [parts[0] + parts[1], *parts[2:]]
            vocabulary.append(parts[0])
    numbered = {piece: number for number, piece in enumerate([*dict.fromkeys(vocabulary), _START, _END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(numbered))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges)]) + "\n")
    special = {"bos_token": _START, "eos_token": _END, "pad_token": "!", "unk_token": _END, "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **special}))
    return CLIPTokenizer.from_pretrained(str(folder))


def _tower(cls: type[nn.Module], width: int, vocabulary: int) -> Any:
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=POOLED,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=0,
    )
    return cls(config).eval().requires_grad_(False)


def _vae() -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=2,
        layers_per_block=1,
        sample_size=SIDE,
    )
    return vae.eval().requires_grad_(False)
