"""CLIP text towers: found in full CLIP files beside the image encoder's own, recognised by their tensors.

A content prompt must be read by the tower that was trained with the image encoder. SDXL checkpoints bring ViT-bigG's;
ViT-H's comes from a file with both towers, or with the text tower alone: Hugging Face's CLIPModel or
CLIPTextModelWithProjection (file, folder or shards) and open_clip, under any prefix.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..units.errors import CheckpointError
from .clip_formats import TEXT, Layout, Shapes, config_beside, count_layers, load_tower, read_tower
from .image_encoders import EncoderInfo
from .tensor_files import few, open_tensors

HEAD_DIM = 64  # of every published text tower; shapes do not tell the number of heads
OPENAI_VIT_L = (768, 768)  # width and projection of the one text tower trained with quick_gelu
BATCH = 64  # texts encoded at a time

log = logging.getLogger("InstantStyle")

Tokenizer = Callable[[str], Sequence[int]]  # text → CLIP's token numbers, without those of start and end


@dataclass(frozen=True)
class TextTowerInfo:
    """What a file's text tower is, read off its keys, its shapes and, for a Hugging Face folder, its config.json."""

    path: Path
    layout: Layout
    prefix: str  # of the text tower's keys
    config: dict[str, Any]  # of transformers' CLIPTextConfig
    vision_width: int | None  # hidden width of the image tower in the same file, if there is one

    @property
    def name(self) -> str:
        return self.path.stem

    def pairs_with(self, encoder: EncoderInfo) -> bool:
        """Whether texts land in the space of the encoder's pooled embeddings.

        ViT-H and ViT-g have one width there: the image tower in the same file tells them apart.
        """
        same_width = self.config["projection_dim"] == encoder.config["projection_dim"]
        return same_width and self.vision_width in (None, encoder.config["hidden_size"])


def inspect_text_tower(path: Path) -> TextTowerInfo:
    """What the file at `path` is; no tensor is read. Raises CheckpointError when it holds no projecting text tower."""
    shapes = open_tensors(path).shapes
    with suppress(IndexError, KeyError, TypeError, ValueError):  # parts are missing, or have shapes of something else
        if info := _recognised(path, shapes):
            return info
    raise CheckpointError(f"{path.name} does not hold a CLIP text tower (found {few(shapes)}, …).")


def _recognised(path: Path, shapes: Shapes) -> TextTowerInfo | None:
    for key in shapes:
        if not key.endswith("token_embedding.weight"):
            continue
        prefix = key.removesuffix("token_embedding.weight")
        plain = prefix.removesuffix("text_model.embeddings.")
        if plain != prefix and f"{plain}text_projection.weight" in shapes:
            return TextTowerInfo(
                path, "huggingface", plain, _huggingface_config(path, shapes, plain), _vision_width(shapes, plain)
            )
        if f"{prefix}ln_final.weight" in shapes:
            return TextTowerInfo(
                path, "open_clip", prefix, _open_clip_config(shapes, prefix), _vision_width(shapes, prefix)
            )
    return None


def _vision_width(shapes: Shapes, prefix: str) -> int | None:
    keys = (f"{prefix}vision_model.embeddings.class_embedding", f"{prefix}visual.class_embedding")
    return next((shapes[key][0] for key in (*keys, "visual.class_embedding") if key in shapes), None)


# What shapes cannot tell, with transformers' defaults: a config.json may leave out what equals its default.
_BESIDE_SHAPES = {"num_attention_heads": 8, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def _huggingface_config(path: Path, shapes: Shapes, prefix: str) -> dict[str, Any]:
    tower = f"{prefix}text_model."
    read = _read_config(
        embedding=shapes[f"{tower}embeddings.token_embedding.weight"],
        positions=shapes[f"{tower}embeddings.position_embedding.weight"][0],
        projection_dim=shapes[f"{prefix}text_projection.weight"][0],
        intermediate=shapes[f"{tower}encoder.layers.0.mlp.fc1.weight"][0],
        layers=count_layers(shapes, rf"^{re.escape(tower)}encoder\.layers\.(\d+)\."),
    )
    return {**read, **config_beside(path, "text_config", read["hidden_size"], _BESIDE_SHAPES)}


def _open_clip_config(shapes: Shapes, prefix: str) -> dict[str, Any]:
    linear = shapes.get(f"{prefix}text_projection.weight")  # (projection, width), as newer models have
    return _read_config(
        embedding=shapes[f"{prefix}token_embedding.weight"],
        positions=shapes[f"{prefix}positional_embedding"][0],
        projection_dim=linear[0] if linear else shapes[f"{prefix}text_projection"][1],
        intermediate=shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0],
        layers=count_layers(shapes, rf"^{re.escape(prefix)}transformer\.resblocks\.(\d+)\."),
    )


def _read_config(
    *, embedding: tuple[int, ...], positions: int, projection_dim: int, intermediate: int, layers: int
) -> dict[str, Any]:
    vocabulary, width = embedding
    if vocabulary < 3 or positions < 3:
        raise ValueError("no room for start, end and one token between")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": projection_dim,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": max(width // HEAD_DIM, 1),
        "max_position_embeddings": positions,
        "hidden_act": "quick_gelu" if (width, projection_dim) == OPENAI_VIT_L else "gelu",
        "bos_token_id": vocabulary - 2,  # as in every CLIP vocabulary; old config.json files say otherwise
        "eos_token_id": vocabulary - 1,
    }


class TextTower:
    """A loaded text tower. Let go of it as soon as the texts are encoded: ViT-H's takes 0.7 GB in half precision."""

    def __init__(self, info: TextTowerInfo, tokenize: Tokenizer, device: torch.device, dtype: torch.dtype) -> None:
        self.info = info
        self.device = device
        self._tokenize = tokenize
        self._model = _load(info).to(device, dtype)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Pooled and projected: (texts, width), float32 on the CPU. A text is cut where the tower's context ends."""
        found = [self._encode(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        embeds = torch.cat(found) if found else torch.zeros(0, self.info.config["projection_dim"])
        if not torch.isfinite(embeds).all():
            raise CheckpointError(f"{self.info.path.name} produces NaN or infinite values; the file may be damaged.")
        return embeds

    def _encode(self, texts: Sequence[str]) -> Tensor:
        """Pooled at the end token, as CLIP does. What stands behind it no token before it sees: causal attention."""
        rows = [self._numbered(text) for text in texts]
        ends = torch.tensor([len(row) - 1 for row in rows], device=self.device)
        padded = [row + [0] * (max(map(len, rows)) - len(row)) for row in rows]
        states = self._model.text_model(torch.tensor(padded, device=self.device)).last_hidden_state
        pooled = states[torch.arange(len(rows), device=self.device), ends]  # (texts, hidden)
        return self._model.text_projection(pooled).float().cpu()

    def _numbered(self, text: str) -> list[int]:
        """Token numbers between start and end; what the vocabulary lacks is left out."""
        config = self.info.config
        numbers = [int(number) for number in self._tokenize(text) if 0 <= number < config["bos_token_id"]]
        return [config["bos_token_id"], *numbers[: config["max_position_embeddings"] - 2], config["eos_token_id"]]


def tokenizer_beside(path: Path) -> Tokenizer | None:
    """The tokenizer in the folder of a model (vocab.json and merges.txt, or tokenizer.json), or None; nothing is
    downloaded."""
    plain = all((path.parent / name).is_file() for name in ("vocab.json", "merges.txt"))
    if not plain and not (path.parent / "tokenizer.json").is_file():
        return None
    import transformers

    def numbers(text: str) -> Sequence[int]:
        return made(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]

    try:
        read = getattr(transformers, "CLIPTokenizer" if plain else "CLIPTokenizerFast")  # the same in transformers 5
        made: Any = read.from_pretrained(str(path.parent), local_files_only=True)
        if not all(isinstance(number, int) for number in numbers("a word")):
            raise ValueError("its vocabulary holds no numbers")
    except Exception as error:  # a broken file makes its reader raise whatever it likes
        log.warning("The tokenizer beside %s is broken and passed over: %s", path.name, error)
        return None
    return numbers


def _load(info: TextTowerInfo) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    tensors = read_tower(info.path, TEXT, info.layout, info.prefix)
    model: Any = load_tower(info.path, lambda: CLIPTextModelWithProjection(CLIPTextConfig(**info.config)), tensors)
    embeddings = model.text_model.embeddings  # transformers before and after 4.31 differ in whether this is stored
    embeddings.position_ids = torch.arange(info.config["max_position_embeddings"])[None]
    return model
