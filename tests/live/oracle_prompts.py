"""Image prompts by the book: from pictures and a text to the tokens that cross-attention sees.

Written from the papers and from how the published files are laid out, with transformers' and open_clip's own towers;
nothing of lib_instantstyle is imported. It is what the extension must agree with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from live_world import World
from oracle_content import without
from PIL import Image
from safetensors.torch import load_file
from tiny_towers import OPEN_CLIP_ARCH
from torch import Tensor

Weights = Mapping[str, Tensor]

TOWER = "conditioner.embedders.1.model."
RESAMPLER_HEAD = 64


@dataclass(frozen=True)
class Content:
    """What is taken out of the picture's embedding: one text, or a text for each phrase, and perhaps a picture."""

    text: str | tuple[str, ...] = ()
    scale: float = 1.0
    method: str = "subtract"
    image: Image.Image | None = None
    keeps_length: bool = False
    tower: Path | None = None  # of a full CLIP model that reads the texts in the checkpoint's place

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text


def load(path: Path) -> dict[str, Tensor]:
    """All tensors of a file in float32."""
    return {name: tensor.float() for name, tensor in load_file(str(path)).items()}


@torch.no_grad()
def image_prompts(
    world: World,
    adapter: Weights,
    pictures: Sequence[Image.Image],
    content: Content | None,
    negative: Image.Image | None = None,
) -> tuple[Tensor, Tensor]:
    """(unconditional, conditional) tokens, each (pictures · tokens, context width)."""
    project = resample if "image_proj.latents" in adapter else project_linearly
    encoder = _encoder_for(world, content)
    uncond, cond = clip_states(encoder, pictures, hidden=project is resample)
    if negative is not None:
        _, uncond = clip_states(encoder, [negative], hidden=project is resample)
    if content is not None:
        cond = torch.cat([without(world, content, encoder, one) for one in cond.split(1)])
    tokens = torch.cat([project(adapter, one) for one in cond.split(1)], dim=1)[0]
    return torch.cat([project(adapter, uncond)] * len(pictures), dim=1)[0], tokens


def _encoder_for(world: World, content: Content | None) -> Path:
    return content.tower if content and content.tower else world.encoder


def clip_states(encoder: Path, pictures: Sequence[Image.Image], hidden: bool) -> tuple[Tensor, Tensor]:
    """What the projection reads of no picture and of the pictures: pooled embeddings or penultimate hidden states."""
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(encoder).eval()
    pixels = CLIPImageProcessor()(images=list(pictures), return_tensors="pt").pixel_values
    if not hidden:
        cond = model(pixels).image_embeds
        return torch.zeros_like(cond[:1]), cond
    both = torch.cat([torch.zeros_like(pixels[:1]), pixels])
    states = model(both, output_hidden_states=True).hidden_states[-2]
    return states[:1], states[1:]


def text_embedding(checkpoint: Path, text: str) -> Tensor:
    """The pooled, projected embedding of a text by the checkpoint's OpenCLIP tower, (width,)."""
    import open_clip

    return _text_tower(checkpoint).encode_text(open_clip.tokenize([text]))[0]


@cache
def _text_tower(checkpoint: Path) -> Any:
    import open_clip

    tower = open_clip.create_model(OPEN_CLIP_ARCH, pretrained=None).eval()
    weights = {name.removeprefix(TOWER): tensor for name, tensor in load(checkpoint).items() if name.startswith(TOWER)}
    missing, _ = tower.load_state_dict(weights, strict=False)
    assert all(name.startswith("visual.") for name in missing)
    return tower


def project_linearly(adapter: Weights, pooled: Tensor) -> Tensor:
    """The base adapter's projection: (1, width) → (1, tokens, context width)."""
    flat = F.linear(pooled, adapter["image_proj.proj.weight"], adapter["image_proj.proj.bias"])
    return _norm(adapter, "norm", flat.reshape(1, -1, adapter["image_proj.norm.weight"].shape[0]))


def resample(adapter: Weights, states: Tensor) -> Tensor:
    """The plus adapter's Resampler: (1, patches + 1, width) → (1, tokens, context width)."""
    features, latents = _linear(adapter, "proj_in", states), adapter["image_proj.latents"]
    layer = 0
    while f"image_proj.layers.{layer}.0.to_q.weight" in adapter:
        latents = latents + _perceive(adapter, f"layers.{layer}.0", features, latents)
        wide = F.gelu(_linear(adapter, f"layers.{layer}.1.1", _norm(adapter, f"layers.{layer}.1.0", latents)))
        latents = latents + _linear(adapter, f"layers.{layer}.1.3", wide)
        layer += 1
    return _norm(adapter, "norm_out", _linear(adapter, "proj_out", latents))


def _perceive(adapter: Weights, name: str, features: Tensor, latents: Tensor) -> Tensor:
    features, latents = _norm(adapter, f"{name}.norm1", features), _norm(adapter, f"{name}.norm2", latents)
    query = _linear(adapter, f"{name}.to_q", latents)
    key, value = _linear(adapter, f"{name}.to_kv", torch.cat([features, latents], dim=1)).chunk(2, dim=-1)
    return _linear(adapter, f"{name}.to_out", attention(query, key, value, query.shape[-1] // RESAMPLER_HEAD))


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(q kᵀ/√d) v, head by head; (rows, tokens, width) each."""
    width = query.shape[-1] // heads
    parts = []
    for head in range(heads):
        q, k, v = (tensor[..., head * width : (head + 1) * width] for tensor in (query, key, value))
        parts.append(torch.softmax(q @ k.transpose(-1, -2) / width**0.5, dim=-1) @ v)
    return torch.cat(parts, dim=-1)


def _linear(adapter: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, adapter[f"image_proj.{name}.weight"], adapter.get(f"image_proj.{name}.bias"))


def _norm(adapter: Weights, name: str, x: Tensor) -> Tensor:
    weight, bias = adapter[f"image_proj.{name}.weight"], adapter[f"image_proj.{name}.bias"]
    return F.layer_norm(x, weight.shape, weight, bias)
