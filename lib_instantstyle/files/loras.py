"""LoRA files for SDXL's UNet: told apart by keys, sized by shapes, refused by name.

    y = W x + scale · (alpha / rank) · up (down x)                               (LoRA, arXiv:2106.09685 §4.1)

Three ways of writing a pair's name are read, with the block in diffusers' or in ldm's notation:

    kohya       lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight, .lora_up.weight, .alpha
    diffusers   unet.up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.lora.down.weight       (B-LoRA's, too)
                unet.up_blocks.0.attentions.1.transformer_blocks.0.attn1.processor.to_q_lora.down.weight
    PEFT        base_model.model.up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q.lora_A.weight

Only what lies inside a cross-attention block is kept: both attentions, the feed-forward, the block's own projections.
Text encoders, resnets and everything else in a file are passed over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..units.blocks import SD15_BLOCKS, SDXL_BLOCKS, SDXL_LAYERS, ldm_name
from ..units.errors import CheckpointError
from .tensor_files import TensorFile, few, open_tensors

Shapes = Mapping[str, tuple[int, ...]]

LAYER_MODULES = (
    *(f"{attention}.{leaf}" for attention in ("attn1", "attn2") for leaf in ("to_q", "to_k", "to_v", "to_out.0")),
    *("ff.net.0.proj", "ff.net.2"),
)
BLOCK_MODULES = ("proj_in", "proj_out")
PREFIXES = ("base_model_model_", "lora_unet_", "unet_", "model_diffusion_model_", "diffusion_model_")  # dots are _ here
_PAIR = re.compile(
    r"^(?P<module>.+?)(?:\.processor(?P<processor>\.to_\w+?)_lora|\.lora)?[._]"
    r"(?P<part>lora_down|lora_up|lora_A|lora_B|down|up)(?:\.default)?\.weight$"
)
_PART = re.compile(r"[._](?:lora_down|lora_A|down)(?:\.default)?\.weight$")
DOWN = ("lora_down", "lora_A", "down")
OTHER_KINDS = {
    "hada_w1_a": "a LoHa file",
    "lokr_w1": "a LoKr file",
    "lokr_w1_a": "a LoKr file",
    "dora_scale": "a DoRA file",
    "lora_magnitude_vector": "a DoRA file",
    "lora_mid.weight": "a LoCon file with Tucker decomposition",
    "oft_blocks": "an OFT file",
    "oft_diag": "an OFT file",
    "boft_blocks": "a BOFT file",
    "a1.weight": "a GLoRA file",
    "on_input": "an IA³ file",
    "diff": "a file of full differences",
}


@dataclass(frozen=True)
class Target:
    """One linear layer inside a cross-attention block."""

    block: str  # diffusers' name
    depth: int | None  # of the transformer layer inside the block; None: the block's own projection
    module: str  # "attn1.to_q"

    @property
    def paths(self) -> tuple[str, str]:
        """Where it lies in a UNet, in diffusers' notation and in ldm's."""
        inside = self.module if self.depth is None else f"transformer_blocks.{self.depth}.{self.module}"
        return f"{self.block}.{inside}", f"{ldm_name(self.block)}.{inside}"


@dataclass(frozen=True)
class LowRankPair:
    """Where one pair's tensors lie in the file, and their sizes."""

    down: str
    up: str
    factor: float | str  # alpha / rank; or the key of alpha, which is read with the pair
    rank: int
    widths: tuple[int, int]  # out, in: the shape of the weight that it adds to


@dataclass(frozen=True, eq=False)
class LoraInfo:
    """What a LoRA file is, read off its keys and shapes; no tensor is read."""

    path: Path
    pairs: dict[Target, LowRankPair]

    @property
    def name(self) -> str:
        return self.path.stem


def inspect_lora(path: Path) -> LoraInfo:
    """What the LoRA file at `path` adds to SDXL's cross-attention blocks. Raises CheckpointError with the reason."""
    return identify_lora(path, open_tensors(path).shapes, _adapter_settings(path))


def identify_lora(path: Path, shapes: Shapes, settings: Mapping[str, Any] | None = None) -> LoraInfo:
    """As `inspect_lora`, from shapes and from what PEFT wrote into the file's header, if it did."""
    _refuse_other_kinds(path, shapes)
    found: dict[str, dict[str, str]] = {}
    for key in shapes:
        if match := _PAIR.match(key):
            module = match["module"] + (match["processor"] or "")
            found.setdefault(module, {})["down" if match["part"] in DOWN else "up"] = key
    named = {module: target for module in found if (target := _target(module)) is not None}
    _refuse_other_models(path, shapes, found, named)
    pairs = {target: _pair(path, module, found[module], shapes, settings or {}) for module, target in named.items()}
    return LoraInfo(path, pairs)


def _refuse_other_kinds(path: Path, shapes: Shapes) -> None:
    for ending, kind in OTHER_KINDS.items():
        if any(key.endswith((f".{ending}", f".{ending}.weight")) for key in shapes):
            raise CheckpointError(
                f"{path.name} is {kind}; only plain LoRA files (pairs of a down and an up matrix) can be routed to "
                "blocks. Use it through the prompt (<lora:…>), or choose a plain LoRA.",
                "lora",
            )


def _refuse_other_models(path: Path, shapes: Shapes, found: Mapping[str, object], named: Mapping[str, object]) -> None:
    if not found:
        raise CheckpointError(f"{path.name} is not a LoRA file (found {few(shapes) or 'nothing'}, …).", "lora")
    small = [block for block in SD15_BLOCKS if block not in SDXL_BLOCKS]
    if any(f"{_flat(block)}_" in _flat(module) for module in found for block in small):
        raise CheckpointError(f"{path.name} is a LoRA for SD 1.5 or SD 2. Choose one for SDXL.", "lora")
    if not named:
        raise CheckpointError(
            f"{path.name} is a LoRA without layers for SDXL's cross-attention blocks (found {few(found)}, …). "
            "Choose a LoRA that was trained on SDXL's UNet.",
            "lora",
        )


def _pair(path: Path, module: str, keys: Mapping[str, str], shapes: Shapes, settings: Mapping[str, Any]) -> LowRankPair:
    if len(keys) != 2:
        raise CheckpointError(f"{path.name} is damaged: {module[:120]} has only one half of its pair.", "lora")
    down, up = shapes[keys["down"]], shapes[keys["up"]]
    if any(math.prod(shape[2:]) != 1 for shape in (down, up)) or down[:1] != up[1:2] or not down[0]:
        raise CheckpointError(f"{path.name} is damaged: the halves of {module[:120]} do not fit.", "lora")
    rank, stem = down[0], _PART.sub("", keys["down"])
    alpha = next((key for key in (f"{module}.alpha", f"{stem}.alpha") if key in shapes), None)
    factor = alpha or _alpha_in(settings, module, rank) / rank
    return LowRankPair(keys["down"], keys["up"], factor, rank, (up[0], down[1]))


def _alpha_in(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """PEFT's alpha for a module: its own if a pattern names it, else the general one, else the rank."""
    patterns = settings.get("unet.alpha_pattern") or {}
    own = next((alpha for name, alpha in patterns.items() if module.endswith(str(name))), None)
    alpha = own if own is not None else settings.get("unet.lora_alpha", rank)
    return float(alpha) if isinstance(alpha, (int, float)) else float(rank)


def _adapter_settings(path: Path) -> Mapping[str, Any]:
    """What diffusers writes into a LoRA's header since 0.34: its alphas, which the keys do not tell."""
    try:
        with safe_open(str(path), framework="pt") as file:
            found = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
        return found if isinstance(found, dict) else {}
    except Exception:  # no safetensors, or another program's header; the file itself was opened before
        return {}


def _flat(name: str) -> str:
    return name.replace(".", "_")


@cache
def _targets() -> dict[str, Target]:
    """Every layer that a pair can be for, by both of its names with _ for dots."""
    inner = [Target(layer.block, layer.depth, module) for layer in SDXL_LAYERS for module in LAYER_MODULES]
    outer = [Target(block, None, module) for block in SDXL_BLOCKS for module in BLOCK_MODULES]
    return {_flat(path): target for target in (*inner, *outer) for path in target.paths}


def _target(module: str) -> Target | None:
    flat = _flat(module)
    for prefix in PREFIXES:
        flat = flat.removeprefix(prefix)
    return _targets().get(flat) or _targets().get(f"{flat}_0")  # processors name to_out without its number


class Lora:
    """An open LoRA file. Pairs are read when asked for, and not kept."""

    def __init__(self, info: LoraInfo) -> None:
        """Raises CheckpointError when the file is not there any more, or not the one that `info` tells of."""
        self.info = info
        self._file: TensorFile = open_tensors(info.path)
        if identify_lora(info.path, self._file.shapes, _adapter_settings(info.path)).pairs != info.pairs:
            raise CheckpointError(f"{info.path.name} was replaced by another file during the job. Start the job again.")

    def read(self, target: Target) -> tuple[Tensor, Tensor]:
        """down (rank, in) and up (out, rank), float32; `up` carries alpha / rank. Raises CheckpointError."""
        pair = self.info.pairs[target]
        down, up = (self._finite(key).flatten(1) for key in (pair.down, pair.up))
        factor = pair.factor if isinstance(pair.factor, float) else float(self._finite(pair.factor)) / pair.rank
        return down, up * factor

    def _finite(self, key: str) -> Tensor:
        tensor = self._file.read(key).float()
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{self.info.path.name} is damaged: {key} holds NaN or infinite values.", "lora")
        return tensor
