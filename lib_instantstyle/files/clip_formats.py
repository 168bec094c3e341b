"""What the files of CLIP's two towers have in common: open_clip's names as Hugging Face's, config.json, loading.

Hugging Face keeps `vision_model.*`, `text_model.*` and two projections; open_clip keeps the vision tower under
`visual.`, the text tower beside it, q, k and v in one tensor and the projections transposed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..units.errors import CheckpointError
from .tensor_files import TensorFile, open_tensors

MAX_LAYERS = 256  # of a tower; ViT-bigG has 48

Layout = Literal["huggingface", "open_clip"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tower:
    """How one of the two towers is called in either format."""

    name: str  # what Hugging Face's keys begin with
    projection: str  # Hugging Face's key, (projection, width)
    open_clip_projection: str  # open_clip's key, (width, projection)
    renamed: tuple[tuple[str, str], ...]  # open_clip's keys → Hugging Face's, outside the layers


VISION = Tower(
    "vision_model.",
    "visual_projection.weight",
    "proj",
    (
        (r"^class_embedding$", "embeddings.class_embedding"),
        (r"^positional_embedding$", "embeddings.position_embedding.weight"),
        (r"^conv1\.weight$", "embeddings.patch_embedding.weight"),
        (r"^ln_pre\.", "pre_layrnorm."),  # spelled so in transformers
        (r"^ln_post\.", "post_layernorm."),
    ),
)
TEXT = Tower(
    "text_model.",
    "text_projection.weight",
    "text_projection",
    (
        (r"^token_embedding\.weight$", "embeddings.token_embedding.weight"),
        (r"^positional_embedding$", "embeddings.position_embedding.weight"),
        (r"^ln_final\.", "final_layer_norm."),
    ),
)
_LAYER = r"^transformer\.resblocks\.(\d+)\."
_LAYERS = (
    (_LAYER + r"ln_1\.", r"encoder.layers.\1.layer_norm1."),
    (_LAYER + r"ln_2\.", r"encoder.layers.\1.layer_norm2."),
    (_LAYER + r"attn\.out_proj\.", r"encoder.layers.\1.self_attn.out_proj."),
    (_LAYER + r"mlp\.c_fc\.", r"encoder.layers.\1.mlp.fc1."),
    (_LAYER + r"mlp\.c_proj\.", r"encoder.layers.\1.mlp.fc2."),
)
_NUMBERS = "position_ids"  # 0, 1, 2, … in some files: no weights, and made anew
_PACKED = re.compile(_LAYER + r"attn\.in_proj_(weight|bias)$")


def _everything(_name: str) -> bool:
    return True


def read_tower(
    path: Path, tower: Tower, layout: Layout, prefix: str, keep: Callable[[str], bool] = _everything
) -> dict[str, Tensor]:
    """A tower's tensors under Hugging Face's names without a prefix; only those that `keep` names are read."""
    file = open_tensors(path)
    names = [(name, name[len(prefix) :]) for name in file.shapes if name.startswith(prefix)]
    if layout == "huggingface":
        own = [(name, short) for name, short in names if short.startswith(tower.name) or short == tower.projection]
        return {short: file.read(name) for name, short in own if keep(short) and not short.endswith(_NUMBERS)}
    return dict(pair for name, short in names for pair in _converted(file, name, short, tower, keep))


def _converted(
    file: TensorFile, name: str, short: str, tower: Tower, keep: Callable[[str], bool]
) -> Iterator[tuple[str, Tensor]]:
    """One of open_clip's tensors under Hugging Face's names: q, k and v unpacked, the projection transposed."""
    if packed := _PACKED.match(short):
        parts = [f"{tower.name}encoder.layers.{packed[1]}.self_attn.{part}_proj.{packed[2]}" for part in "qkv"]
        if any(map(keep, parts)):
            yield from ((part, one) for part, one in zip(parts, file.read(name).chunk(3)) if keep(part))
    elif short == tower.open_clip_projection and keep(tower.projection):
        yield tower.projection, file.read(name).T.contiguous()
    elif short == f"{tower.open_clip_projection}.weight" and keep(tower.projection):  # a Linear, as newer models have
        yield tower.projection, file.read(name)
    for pattern, replacement in (*tower.renamed, *_LAYERS):
        target = tower.name + re.sub(pattern, replacement, short)
        if re.match(pattern, short) and keep(target):
            yield target, file.read(name)


def load_tower(path: Path, build: Callable[[], nn.Module], tensors: dict[str, Tensor]) -> nn.Module:
    """The module that `build` makes, with the tensors of the file at `path` as its weights, in eval mode.

    Raises CheckpointError when parts are missing or do not fit.
    """
    try:
        with torch.device("meta"):
            model = build()
        missing, _ = model.load_state_dict(tensors, strict=False, assign=True)
    except Exception as error:  # sizes of no model: transformers, or torch, says so in its own way
        raise CheckpointError(f"{path.name} does not fit its own layout: {error}") from None
    if lacking := [name for name in missing if not name.endswith(_NUMBERS)]:
        raise CheckpointError(f"{path.name} is incomplete: it lacks {', '.join(lacking[:3])}. Download it again.")
    return model.eval().requires_grad_(False)


def config_beside(path: Path, section: str, hidden: int, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What shapes cannot tell, from a config.json in the same folder if it speaks of a tower of that width.

    `defaults` are transformers' own: a config.json may leave out what equals its default. One with values of another
    kind than theirs is passed over.
    """
    try:
        config = json.loads((path.parent / "config.json").read_text("utf-8"))
        tower = config.get(section) or config
        meant = tower.get("hidden_size") == hidden
    except (OSError, ValueError, AttributeError, RecursionError):  # not there, no JSON, or JSON of something else
        return {}
    found = {key: tower.get(key, default) for key, default in defaults.items()}
    sound = all(type(found[key]) is type(default) for key, default in defaults.items())
    return found if meant and sound else {}


def count_layers(shapes: Shapes, pattern: str) -> int:
    """How many different numbers the group of `pattern` takes among the keys. Raises ValueError above MAX_LAYERS."""
    count = len({found[1] for found in (re.match(pattern, name) for name in shapes) if found})
    if count > MAX_LAYERS:
        raise ValueError(f"{count} layers")
    return count
