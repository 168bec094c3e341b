"""CLIP image encoders: recognised by their tensors, loaded from every format in the wild, fed as the reference does.

Formats: Hugging Face CLIPVisionModelWithProjection or CLIPModel (file, folder or shards) and open_clip (with or
without the text tower).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from ..units.errors import CheckpointError
from .clip_formats import VISION, Layout, Shapes, config_beside, count_layers, load_tower, read_tower
from .preprocessing import CENTER, preprocess, shuffled
from .tensor_files import few, open_tensors

HEADS = {1024: 16, 1280: 16, 1408: 16, 1664: 16}  # of ViT-L, H, g and bigG: shapes do not tell the number of heads
OPENAI_VIT_L = (1024, 768)  # hidden and projection width of the one tower trained with quick_gelu


@dataclass(frozen=True)
class Feature:
    """What an image projection eats."""

    kind: Literal["pooled", "hidden"]  # projected class embedding (n, width), or penultimate states (n, tokens, width)
    width: int

    @property
    def encoder_name(self) -> str:
        """The encoder whose output this is, as people know it."""
        return _ENCODER_NAMES.get((self.kind, self.width), f"a CLIP vision model of {self.kind} width {self.width}")


_ENCODER_NAMES = {
    ("pooled", 768): "CLIP ViT-L/14",
    ("pooled", 1024): "CLIP ViT-H/14 (laion2B-s32B-b79K)",
    ("pooled", 1280): "CLIP ViT-bigG/14 (laion2B-39B-b160k)",
    ("hidden", 1024): "CLIP ViT-L/14",
    ("hidden", 1280): "CLIP ViT-H/14 (laion2B-s32B-b79K)",
    ("hidden", 1664): "CLIP ViT-bigG/14 (laion2B-39B-b160k)",
}


@dataclass(frozen=True)
class EncoderInfo:
    """What an encoder file is, read off its keys, its shapes and, for a Hugging Face folder, its config.json."""

    path: Path
    layout: Layout
    prefix: str  # of the vision tower's keys
    config: dict[str, Any]  # of transformers' CLIPVisionConfig

    @property
    def name(self) -> str:
        return self.path.stem

    def gives(self, feature: Feature) -> bool:
        """Whether this encoder's output is `feature`."""
        field = "projection_dim" if feature.kind == "pooled" else "hidden_size"
        return self.config[field] == feature.width


def inspect_encoder(path: Path) -> EncoderInfo:
    """What the file at `path` is; no tensor is read. Raises CheckpointError when it holds no CLIP vision tower."""
    shapes = open_tensors(path).shapes
    with suppress(IndexError, KeyError, TypeError, ValueError):  # parts are missing, or have shapes of something else
        if info := _recognised(path, shapes):
            return info
    raise CheckpointError(f"{path.name} does not hold a CLIP image encoder (found {few(shapes)}, …).")


def _recognised(path: Path, shapes: Shapes) -> EncoderInfo | None:
    for key in shapes:
        if not key.endswith("class_embedding"):
            continue
        prefix = key.removesuffix("class_embedding")
        plain = prefix.removesuffix("vision_model.embeddings.")
        if plain != prefix and f"{plain}visual_projection.weight" in shapes:
            return EncoderInfo(path, "huggingface", plain, _huggingface_config(path, shapes, plain))
        if f"{prefix}proj" in shapes and f"{prefix}ln_post.weight" in shapes:
            return EncoderInfo(path, "open_clip", prefix, _open_clip_config(shapes, prefix))
    return None


def _huggingface_config(path: Path, shapes: Shapes, prefix: str) -> dict[str, Any]:
    projection_dim, hidden = shapes[f"{prefix}visual_projection.weight"]
    tower = f"{prefix}vision_model."
    read = _read_config(
        hidden=hidden,
        projection_dim=projection_dim,
        intermediate=shapes[f"{tower}encoder.layers.0.mlp.fc1.weight"][0],
        layers=count_layers(shapes, rf"^{re.escape(tower)}encoder\.layers\.(\d+)\."),
        patch=shapes[f"{tower}embeddings.patch_embedding.weight"][-1],
        positions=shapes[f"{tower}embeddings.position_embedding.weight"][0],
    )
    return {**read, **config_beside(path, "vision_config", hidden, _BESIDE_SHAPES)}


def _open_clip_config(shapes: Shapes, prefix: str) -> dict[str, Any]:
    hidden, projection_dim = shapes[f"{prefix}proj"]
    return _read_config(
        hidden=hidden,
        projection_dim=projection_dim,
        intermediate=shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0],
        layers=count_layers(shapes, rf"^{re.escape(prefix)}transformer\.resblocks\.(\d+)\."),
        patch=shapes[f"{prefix}conv1.weight"][-1],
        positions=shapes[f"{prefix}positional_embedding"][0],
    )


def _read_config(
    *, hidden: int, projection_dim: int, intermediate: int, layers: int, patch: int, positions: int
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "projection_dim": projection_dim,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS.get(hidden, max(hidden // 64, 1)),
        "patch_size": patch,
        "image_size": round((positions - 1) ** 0.5) * patch,
        "hidden_act": "quick_gelu" if (hidden, projection_dim) == OPENAI_VIT_L else "gelu",
    }


# What shapes cannot tell, with transformers' defaults: a config.json may leave out what equals its default.
_BESIDE_SHAPES = {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


class ImageEncoder:
    """A loaded encoder. Let go of it as soon as the pictures are encoded: ViT-bigG takes 3.7 GB in half precision."""

    def __init__(self, info: EncoderInfo, device: torch.device, dtype: torch.dtype) -> None:
        self.info = info
        self.device = device
        self.dtype = dtype
        self._model = _load(info).to(device, dtype)

    @torch.no_grad()
    def encode(
        self, image: Image.Image, feature: Feature, crop: str = CENTER, counts: Image.Image | None = None
    ) -> Tensor:
        """An RGB picture → (1, width) pooled or (1, tokens, width) hidden, float32 on the CPU; of tiles their mean.

        Where the mask `counts` is black, the picture is not seen.
        """
        found = self._run(preprocess(image, self.info.config["image_size"], crop, counts), feature)
        return found if len(found) == 1 else found.mean(0, keepdim=True)

    @torch.no_grad()
    def encode_shuffled(self, image: Image.Image, feature: Feature, seed: int) -> Tensor:
        """As `encode`, of the middle of the picture with its pixels in an order that the seed decides."""
        return self._run(shuffled(preprocess(image, self.info.config["image_size"]), seed), feature)

    @torch.no_grad()
    def encode_all(self, images: Sequence[Image.Image], feature: Feature) -> Tensor:
        """RGB pictures → (n, width) pooled or (n, tokens, width) hidden, in one pass."""
        return self._run(torch.cat([preprocess(x, self.info.config["image_size"]) for x in images]), feature)

    @torch.no_grad()
    def encode_grey(self, feature: Feature) -> Tensor:
        """As `encode`, for the mid-grey picture: zeros after normalisation, the reference's unconditional input."""
        size = self.info.config["image_size"]
        return self._run(torch.zeros(1, 3, size, size), feature)

    def _run(self, pixels: Tensor, feature: Feature) -> Tensor:
        output = self._model(pixels.to(self.device, self.dtype), output_hidden_states=feature.kind == "hidden")
        embeds = output.image_embeds if feature.kind == "pooled" else output.hidden_states[-2]
        embeds = embeds.float().cpu()
        if not torch.isfinite(embeds).all():
            raise CheckpointError(f"{self.info.path.name} produces NaN or infinite values; the file may be damaged.")
        return embeds


def _load(info: EncoderInfo) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tensors = read_tower(info.path, VISION, info.layout, info.prefix)
    model: Any = load_tower(info.path, lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**info.config)), tensors)
    embeddings = model.vision_model.embeddings  # transformers before and after 4.31 differ in whether it is stored
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    return model
