"""Identify an adapter or encoder file by its keys and shapes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...files.adapters import AdapterInfo, inspect_adapter
from ...files.containers import mentions
from ...files.image_encoders import EncoderInfo, Feature, inspect_encoder
from ...files.installed import ModelFiles
from ...units.blocks import SDXL_LAYERS
from ...units.errors import CheckpointError, InstantStyleError
from .output import Report

_OF_BIGG = (Feature("pooled", 1280), Feature("hidden", 1664))  # of ViT-bigG, whose text tower SDXL brings


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("inspect", help="identify an adapter or encoder file", description=__doc__)
    parser.add_argument("file", type=Path, help="an adapter or encoder file, or a folder to look through")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Report:
    """What the file is, or everything usable in a folder. Raises InstantStyleError when there is nothing."""
    found = _in_folder(options.file) if options.file.is_dir() else [described(options.file)]
    text = "\n\n".join("\n".join(f"{key}: {_shown(value)}" for key, value in one.items()) for one in found)
    return Report(text, {"files": found})


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _in_folder(folder: Path) -> list[dict[str, Any]]:
    files = ModelFiles(lambda: [folder], lambda: [folder])
    found = [_adapter(info) for info in files.adapters.usable()] + [_encoder(info) for info in files.encoders.usable()]
    if not found:
        raise InstantStyleError(f"{folder} holds neither an IP-Adapter for SDXL nor a CLIP image encoder.")
    return found


def described(path: Path) -> dict[str, Any]:
    """What the file at `path` is. Raises CheckpointError with the reason when it is neither."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}. Check the path.")
    if mentions(path, "class_embedding") and not mentions(path, "to_k_ip"):
        return _encoder(inspect_encoder(path))
    return _adapter(inspect_adapter(path))


def _adapter(info: AdapterInfo) -> dict[str, Any]:
    at = {layer.index: layer.block for layer in SDXL_LAYERS}
    complete = len(info.layer_widths) == len(SDXL_LAYERS)
    blocks = dict.fromkeys(at[index] for index in sorted(info.layer_widths) if index in at)
    return {
        "file": str(info.path),
        "kind": "IP-Adapter",
        "variant": info.variant,
        "reads": info.feature.encoder_name,
        "feature": f"{info.feature.kind}, {info.feature.width} wide",
        "tokens": info.tokens,
        "cross_attention_dim": info.cross_attention_dim,
        "layers": len(info.layer_widths),
        "blocks": "all" if complete else list(blocks),  # numbered as in SDXL's seventy layers
        "content_prompt": _content_prompt(info.feature),
    }


def _content_prompt(feature: Feature) -> str:
    """Whether words can be taken out of what the adapter reads, and what reads the words."""
    how = "possible" if feature.kind == "pooled" else "experimental, on patch features"
    by = "the checkpoint" if feature in _OF_BIGG else "the text encoder of a full CLIP model among the encoder files"
    return f"{how}; words are read by {by}"


def _encoder(info: EncoderInfo) -> dict[str, Any]:
    return {
        "file": str(info.path),
        "kind": "CLIP image encoder",
        "layout": info.layout,
        "pooled_width": info.config["projection_dim"],
        "hidden_width": info.config["hidden_size"],
        "layers": info.config["num_hidden_layers"],
        "image_size": info.config["image_size"],
        "patch_size": info.config["patch_size"],
    }
