"""Image prompts by the book: from pictures and a text to the tokens that cross-attention sees.

Written from the papers and from how the published files are laid out, with transformers' own image tower;
nothing of lib_instantstyle is imported. It is what the extension must agree with.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from live_world import World
from oracle_content import without
from PIL import Image
from safetensors.torch import load_file
from tiny_towers import CONTEXT_LENGTH, OPEN_CLIP_LAYERS
from torch import Tensor

Weights = Mapping[str, Tensor]

TOWER, OPEN_CLIP_HEADS = "conditioner.embedders.1.model.", 4
START, END = 49406, 49407  # of a text
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
    weights, numbers = _text_tower(checkpoint), _numbers(checkpoint, text)
    x = weights["token_embedding.weight"][numbers] + weights["positional_embedding"]  # (77, width)
    for layer in range(OPEN_CLIP_LAYERS):
        x = _read_on(weights, f"transformer.resblocks.{layer}", x)
    x = F.layer_norm(x, x.shape[-1:], weights["ln_final.weight"], weights["ln_final.bias"])
    return x[numbers.index(END)] @ weights["text_projection"]


def _read_on(weights: Weights, name: str, x: Tensor) -> Tensor:
    """One layer of OpenCLIP's text transformer; a word sees those before it."""

    def linear(part: str, y: Tensor) -> Tensor:
        return F.linear(y, weights[f"{name}.{part}weight"], weights[f"{name}.{part}bias"])

    def norm(part: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"])

    query, key, value = (
        linear("attn.in_proj_", norm("ln_1")).unflatten(-1, (3, OPEN_CLIP_HEADS, -1)).permute(1, 2, 0, 3)
    )
    seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    x = x + linear("attn.out_proj.", seen.transpose(0, 1).flatten(1))
    return x + linear("mlp.c_proj.", F.gelu(linear("mlp.c_fc.", norm("ln_2"))))


def _numbers(checkpoint: Path, text: str) -> list[int]:
    """CLIP's numbers of the pieces of a text, filled up with zeros as OpenCLIP does."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(checkpoint.with_name(f"{checkpoint.stem}-text"))
    pieces = tokenizer(html.unescape(text), add_special_tokens=False)["input_ids"][: CONTEXT_LENGTH - 2]
    return [START, *pieces, END, *[0] * (CONTEXT_LENGTH - 2 - len(pieces))]


@cache
def _text_tower(checkpoint: Path) -> dict[str, Tensor]:
    return {name.removeprefix(TOWER): tensor for name, tensor in load(checkpoint).items() if name.startswith(TOWER)}


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
