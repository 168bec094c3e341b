"""Make a tiny SDXL world: a checkpoint, an IP-Adapter and an image encoder.

The WebUI loads the checkpoint as SDXL, because it has SDXL's whole structure: two text towers, eleven spatial
transformers with seventy cross-attentions, a VAE. Only the widths are small, so three steps take a fraction of a second
on a processor. The weights are random: they show which tensor goes where, never how a picture looks.

Every tensor is drawn from the seed and the list of shapes alone, so this needs neither the WebUI nor its model code,
and the same seed always gives the same files. No layer is left at zero, not even those that training starts at zero:
otherwise neither a prompt nor an adapter would change anything.

    python tests/live/tiny_sdxl.py FOLDER [--seed N]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

import tiny_shapes as unet
import tiny_towers as towers
import tiny_vae
import torch
from live_kind import kind
from tiny_files import save_random
from tiny_shapes import Shapes, under

NAME = "tiny-sdxl"
TOKENIZER = "backend/huggingface/stabilityai/stable-diffusion-xl-base-1.0/tokenizer"
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
CONFIG = Path(__file__).parents[2] / "demo/world/sdxl.yaml"


@dataclass(frozen=True)
class TinyCheckpoint:
    """Where a tiny checkpoint lies: its weights, its config and its smaller text tower."""

    weights: Path
    config: Path
    text_tower: Path


def tiny_checkpoint(folder: Path, name: str = NAME) -> TinyCheckpoint:
    """Where the checkpoint of that name lies in `folder`, or would."""
    return TinyCheckpoint(folder / f"{name}.safetensors", folder / f"{name}.yaml", folder / f"{name}-text")


def write_tiny_sdxl(folder: Path, *, name: str = NAME, seed: int = 0, deep: int = unet.DEEP) -> TinyCheckpoint:
    """Write a checkpoint, and beside it the config by which the WebUI loads it as SDXL.

    With another `deep` its UNet has fewer or more layers than SDXL's, as distilled checkpoints and the refiner have.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    made = tiny_checkpoint(folder, name)
    _write_text_tower(made.text_tower)
    made.config.write_text(_config(made.text_tower, deep), encoding="utf-8")
    save_random(_checkpoint(deep), made.weights, seed, torch.float16)
    return made


def write_tiny_adapter(
    path: Path,
    *,
    kind: Literal["base", "plus"] = "base",
    encoder_width: int,
    cross_attention_dim: int = unet.CONTEXT_WIDTH,
    layer_widths: Sequence[int] = unet.LAYER_WIDTHS,
    seed: int = 0,
) -> None:
    """Write an IP-Adapter in the published format, fitting the tiny checkpoint by default.

    `encoder_width` is the width of what the adapter reads: the encoder's projection for "base", its hidden states
    for "plus".
    """
    projections = {"base": towers.linear_projection, "plus": towers.resampler}
    shapes = under("image_proj.", projections[kind](encoder_width, cross_attention_dim))
    for index, width in enumerate(layer_widths):
        for name in ("to_k_ip", "to_v_ip"):
            shapes[f"ip_adapter.{2 * index + 1}.{name}.weight"] = (width, cross_attention_dim)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_random(shapes, Path(path), seed, torch.float16)


def write_tiny_encoder(folder: Path, *, hidden_size: int, projection_dim: int, seed: int = 0) -> None:
    """Write a folder from which transformers loads a CLIPVisionModelWithProjection."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_act": "gelu",
        "hidden_size": hidden_size,
        "image_size": towers.ENCODER_IMAGE_SIZE,
        "intermediate_size": 2 * hidden_size,
        "num_attention_heads": towers.ENCODER_HEADS,
        "num_hidden_layers": towers.ENCODER_LAYERS,
        "patch_size": towers.ENCODER_PATCH_SIZE,
        "projection_dim": projection_dim,
    }
    _write_json(folder / "config.json", config)
    shapes = towers.vision_tower(hidden_size, projection_dim)
    save_random(shapes, folder / "model.safetensors", seed, torch.float32)


def _checkpoint(deep: int) -> Shapes:
    return (
        under("model.diffusion_model.", unet.unet(deep))
        | under("conditioner.embedders.0.transformer.text_model.", towers.clip_text_tower())
        | under("conditioner.embedders.1.model.", towers.open_clip_text_tower())
        | under("first_stage_model.", tiny_vae.vae())
    )


def _config(text_tower: Path, deep: int) -> str:
    widths, vae_widths = (unet.NARROW, unet.MEDIUM, unet.WIDE), tiny_vae.WIDTHS
    return Template(CONFIG.read_text("utf-8")).substitute(
        text_tower=json.dumps(str(text_tower)),
        open_clip_arch=towers.OPEN_CLIP_ARCH,
        context_width=unet.CONTEXT_WIDTH,
        vector_width=unet.VECTOR_WIDTH,
        scale=0.13025,
        width=unet.NARROW,
        multiples=[width // unet.NARROW for width in widths],
        depths=[1, unet.SHALLOW, deep],  # the first is never used
        head_width=unet.HEAD_WIDTH,
        vae_width=vae_widths[0],
        vae_multiples=[width // vae_widths[0] for width in vae_widths],
        vae_blocks=2,
    )


def _write_text_tower(folder: Path) -> None:
    """Write the smaller text tower's config and tokenizer; the checkpoint has its weights."""
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": "quick_gelu",
        "hidden_size": unet.CLIP_WIDTH,
        "intermediate_size": 4 * unet.CLIP_WIDTH,
        "max_position_embeddings": towers.CONTEXT_LENGTH,
        "num_attention_heads": towers.CLIP_HEADS,
        "num_hidden_layers": towers.CLIP_LAYERS,
        "vocab_size": towers.VOCABULARY,
    }
    _write_json(folder / "config.json", config)
    _write_tokenizer(folder)


def _write_tokenizer(folder: Path) -> None:
    """Write CLIP's tokenizer from the word pieces that open_clip brings along, or a WebUI that does without it."""
    if kind().has_backend:
        for name in TOKENIZER_FILES:
            shutil.copy(Path(os.environ["WEBUI_DIR"]) / TOKENIZER / name, folder / name)
        return
    from open_clip.tokenizer import SimpleTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    pieces = SimpleTokenizer()
    renamed = {"<start_of_text>": start, "<end_of_text>": end}
    vocabulary = {renamed.get(word, word): number for word, number in pieces.encoder.items()}
    merges = ["#version: 0.2", *(" ".join(pair) for pair in pieces.bpe_ranks)]
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": towers.CONTEXT_LENGTH, **special}
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a tiny SDXL checkpoint into a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    write_tiny_sdxl(options.folder, seed=options.seed)


if __name__ == "__main__":
    main()
