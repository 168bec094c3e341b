"""Whether a model on disk is SDXL's layout and fits an adapter, from its keys and shapes: no weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..files.adapters import AdapterInfo
from ..files.containers import SHARD_INDEX_SUFFIX
from ..files.tensor_files import may_hold_tensors, open_tensors
from ..units.blocks import attention_layers
from ..units.errors import IncompatibleModelError
from .models import Checkpoint, Model, is_hub_id

UNET_PREFIX = "model.diffusion_model."  # of a checkpoint file; a folder's UNet has no prefix
_KEY = ".attn2.to_k.weight"
_INPUTS = ("input_blocks.0.0.weight", "conv_in.weight")  # (out, channels, 3, 3) of a checkpoint file, of a folder
LATENT = 4  # channels
_MADE_FOR = {9: " (an inpainting model)", 8: " (an InstructPix2Pix model)"}


def check_model(model: str | Path, adapter: AdapterInfo | None = None) -> str:
    """What the model is. Raises InstantStyleError when it is no SDXL model or an adapter given does not fit it."""
    path = Path(model).expanduser()
    if not path.exists() and is_hub_id(model):
        return f"{model} is a Hub id; it is checked when it is used"
    shapes = _unet_shapes(path)
    _check_channels(path, shapes)
    layers = attention_layers(skeleton(shapes))
    if adapter is not None:
        adapter.check_fits(layers)
    kind = "diffusers folder" if path.is_dir() else "checkpoint file"
    fits = f"; {adapter.path.name} fits" if adapter is not None else ""
    return f"SDXL layout ({kind}, {len(layers)} cross-attention layers){fits}"


def check_channels(model: Model) -> None:
    """Raise IncompatibleModelError for a model on disk that takes a picture beside the latent, as inpainting does."""
    path = Path(model.path if isinstance(model, Checkpoint) else model).expanduser()
    if path.is_file() or (path / "unet").is_dir():
        _check_channels(path, _unet_shapes(path))


def _check_channels(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    found = next((shapes[key][1] for key in _INPUTS if len(shapes.get(key, ())) > 1), LATENT)
    if found != LATENT:
        raise IncompatibleModelError(
            f"{path.name} takes {found} input channels{_MADE_FOR.get(found, '')}; only models with the {LATENT} "
            "channels of a latent are supported here. Use a plain text-to-image SDXL checkpoint.",
            "model",
        )


def _unet_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.is_file():
        shapes = open_tensors(path).shapes
        return {key[len(UNET_PREFIX) :]: shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    if not (path / "unet").is_dir():
        raise IncompatibleModelError(f"{path} is neither a checkpoint file nor a diffusers folder. Check the path.")
    return open_tensors(weights_in(path / "unet")).shapes


def weights_in(folder: Path) -> Path:
    """The weights of one part of a diffusers folder: the index where they are sharded, safetensors first."""
    files = [path for path in sorted(folder.iterdir()) if may_hold_tensors(path)]
    ranked = sorted(files, key=lambda path: (not _is_index(path), path.suffix.lower() != ".safetensors", path.name))
    if not ranked:
        raise IncompatibleModelError(f"{folder} holds no weights. Download the model again.")
    return ranked[0]


def _is_index(path: Path) -> bool:
    return path.name.lower().endswith(SHARD_INDEX_SUFFIX) and "weight_map" in json.loads(path.read_text("utf-8"))


def skeleton(shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Modules with the names of a UNet's cross attentions and empty weights of their shapes, on the meta device."""
    root = nn.Module()
    for key, shape in shapes.items():
        if key.endswith(_KEY):
            module = root
            for name in key.removesuffix(".weight").split("."):
                if name not in module._modules:
                    module.add_module(name, nn.Module())
                module = module.get_submodule(name)
            module.weight = nn.Parameter(torch.empty(shape, device="meta"), requires_grad=False)
    return root
