"""CLIP models of transformers' own classes, and the formats in which people keep them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

HIDDEN, POOLED, PATCHES = 128, 48, 17  # widths of the two features, and tokens of a hidden one
SHARD_INDEX = "model.safetensors.index.json"
_VISION = {
    "hidden_size": HIDDEN,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
}
_TEXT = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 1}
_TEXT |= {"bos_token_id": 97, "eos_token_id": 98}


def vision_model(hidden_act: str = "gelu", **changes: object) -> CLIPVisionModelWithProjection:
    """A vision tower with projection, no parameter at its neutral value; the same at every call."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(**{**_VISION, "projection_dim": POOLED, "hidden_act": hidden_act, **changes})
    return _randomised(CLIPVisionModelWithProjection(config))


def clip_model() -> CLIPModel:
    """Both towers, as a CLIPModel; the same at every call."""
    torch.manual_seed(0)
    text = {**_TEXT, "projection_dim": POOLED}
    vision = {**_VISION, "projection_dim": POOLED, "hidden_act": "gelu"}
    return _randomised(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=POOLED)))


def _randomised(model: nn.Module) -> nn.Module:
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.3
            parameter.add_(spread * torch.randn(parameter.shape, generator=made))
    return model.eval().requires_grad_(False)


_OPEN_CLIP = (
    ("vision_model.embeddings.class_embedding", "class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "conv1."),
    ("vision_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("vision_model.pre_layrnorm.", "ln_pre."),
    ("vision_model.post_layernorm.", "ln_post."),
    ("vision_model.encoder.layers.", "transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".self_attn.", ".attn."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)


def open_clip_tensors(model: CLIPVisionModelWithProjection, prefix: str = "visual.") -> dict[str, Tensor]:
    """A Hugging Face vision tower as open_clip stores it: q, k and v in one tensor, the projection transposed."""
    source = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("position_ids")}
    found = {"proj": source.pop("visual_projection.weight").T.contiguous()}
    for name in [name for name in source if ".q_proj." in name]:
        parts = [source.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        found[_open_clip_name(name).replace("q_proj.", "in_proj_")] = torch.cat(parts)
    found |= {_open_clip_name(name): tensor for name, tensor in source.items()}
    return {f"{prefix}{name}": tensor.clone() for name, tensor in found.items()}


def _open_clip_name(name: str) -> str:
    for ours, theirs in _OPEN_CLIP:
        name = name.replace(ours, theirs)
    return name


def save_shards(tensors: dict[str, Tensor], folder: Path) -> Path:
    """Two safetensors files and the index that says which tensor lies in which."""
    folder.mkdir(parents=True, exist_ok=True)
    part_of = {name: f"model-{index % 2 + 1:05}-of-00002.safetensors" for index, name in enumerate(sorted(tensors))}
    for part in set(part_of.values()):
        save_file({name: tensors[name].clone() for name in tensors if part_of[name] == part}, str(folder / part))
    index = folder / SHARD_INDEX
    index.write_text(json.dumps({"metadata": {}, "weight_map": part_of}))
    return index


def image_processor(size: int) -> Any:
    """transformers' own CLIP preprocessing on PIL and numpy, whatever its name in this version."""
    try:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
    except ImportError:  # before transformers 5 the plain class is the PIL one
        from transformers import CLIPImageProcessor as Processor
    return Processor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
