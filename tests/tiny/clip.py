"""CLIP models of transformers' own classes, and the formats in which people keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

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
_TEXT |= {"bos_token_id": 97, "eos_token_id": 98}  # the last two, as in CLIP's own vocabulary


def vision_model(hidden_act: str = "gelu", **changes: object) -> CLIPVisionModelWithProjection:
    """A vision tower with projection, no parameter at its neutral value; the same at every call."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(**{**_VISION, "projection_dim": POOLED, "hidden_act": hidden_act, **changes})
    return _randomised(CLIPVisionModelWithProjection(config))


def text_model(hidden_act: str = "gelu", **changes: object) -> CLIPTextModelWithProjection:
    """A text tower with projection; the same at every call."""
    torch.manual_seed(0)
    config = CLIPTextConfig(**{**_TEXT, "projection_dim": POOLED, "hidden_act": hidden_act, **changes})
    return _randomised(CLIPTextModelWithProjection(config))


def clip_model(text_act: str = "gelu") -> CLIPModel:
    """Both towers, as a CLIPModel; the same at every call."""
    torch.manual_seed(0)
    text = {**_TEXT, "projection_dim": POOLED, "hidden_act": text_act}
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
    return _open_clip_vision(model.state_dict(), prefix)


def _open_clip_vision(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    source = {name: tensor for name, tensor in tensors.items() if not name.endswith("position_ids")}
    found = {"proj": source.pop("visual_projection.weight").T.contiguous()}
    return _open_clip(source, found, _OPEN_CLIP, prefix)


def _open_clip(
    source: dict[str, Tensor], found: dict[str, Tensor], names: Sequence[tuple[str, str]], prefix: str
) -> dict[str, Tensor]:
    for name in [name for name in source if ".q_proj." in name]:
        parts = [source.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        found[_renamed(name, names).replace("q_proj.", "in_proj_")] = torch.cat(parts)
    found |= {_renamed(name, names): tensor for name, tensor in source.items()}
    return {f"{prefix}{name}": tensor.clone() for name, tensor in found.items()}


def _renamed(name: str, names: Sequence[tuple[str, str]]) -> str:
    for ours, theirs in names:
        name = name.replace(ours, theirs)
    return name


_OPEN_CLIP_TEXT = (
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    *_OPEN_CLIP[6:],
)


def open_clip_text_tensors(model: nn.Module, prefix: str = "", *, linear: bool = False) -> dict[str, Tensor]:
    """The text tower of a Hugging Face model as open_clip stores it; `linear`: with newer models' projection."""
    source = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("text_")}
    source = {name: tensor for name, tensor in source.items() if not name.endswith("position_ids")}
    projection = source.pop("text_projection.weight")
    found = {"text_projection.weight": projection} if linear else {"text_projection": projection.T.contiguous()}
    return _open_clip(source, found, _OPEN_CLIP_TEXT, prefix)


def open_clip_of_both(model: CLIPModel) -> dict[str, Tensor]:
    """Both towers of a CLIPModel as open_clip stores them."""
    vision = {name: t for name, t in model.state_dict().items() if name.startswith("vis")}
    return {**_open_clip_vision(vision, "visual."), **open_clip_text_tensors(model), "logit_scale": torch.tensor(1.0)}


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
