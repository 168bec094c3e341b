"""LoRA files for a tiny UNet, in each of the ways in which people's files are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lib_instantstyle.units.blocks import diffusers_name, ldm_name

FORMS = ("kohya", "kohya in diffusers' names", "diffusers", "processors", "PEFT")
RANK = 4
Pairs = dict[str, tuple[Tensor, Tensor]]  # module's path in diffusers' notation → down, up


def tiny_pairs(unet: nn.Module, paths: Iterable[str], seed: int = 0) -> Pairs:
    """Random pairs for the linear layers at `paths` of a diffusers UNet."""
    made = torch.Generator().manual_seed(seed)

    def pair(path: str) -> tuple[Tensor, Tensor]:
        out, width = unet.get_submodule(path).weight.shape
        return 0.3 * torch.randn(RANK, width, generator=made), 0.3 * torch.randn(out, RANK, generator=made)

    return {path: pair(path) for path in paths}


def linear_paths(unet: nn.Module, *blocks: str) -> list[str]:
    """The linear layers inside some cross-attention blocks of a diffusers UNet, the blocks' own projections too."""
    found = [path for path, module in unet.named_modules() if isinstance(module, nn.Linear)]
    return [path for path in found if any(path.startswith(f"{block}.") for block in blocks)]


def in_ldm(path: str) -> str:
    """The path of a layer inside a cross-attention block in ldm's notation."""
    block = ".".join(path.split(".")[: 4 if not path.startswith("mid") else 3])
    assert diffusers_name(ldm_name(block)) == block
    return ldm_name(block) + path[len(block) :]


def write_lora(path: Path, pairs: Pairs, form: str = "kohya", alpha: float | None = None) -> Path:
    """A file of these pairs. `alpha` goes where the form has a place for it; none means the rank."""
    tensors = {}
    for module, (down, up) in pairs.items():
        down_key, up_key, alpha_key = _keys(module, form)
        tensors |= {down_key: down.contiguous(), up_key: up.contiguous()}
        if alpha is not None:
            tensors[alpha_key] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def _keys(module: str, form: str) -> tuple[str, str, str]:
    if form.startswith("kohya"):
        name = "lora_unet_" + (in_ldm(module) if form == "kohya" else module).replace(".", "_")
        return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"
    name = f"unet.{module}"
    if form == "PEFT":
        return f"{name}.lora_A.weight", f"{name}.lora_B.weight", f"{name}.alpha"
    if form == "processors" and ".attn" in module:
        attention, _, leaf = name.removesuffix(".0").rpartition(".")
        name = f"{attention}.processor.{leaf}_lora"
        return f"{name}.down.weight", f"{name}.up.weight", f"{name}.alpha"
    return f"{name}.lora.down.weight", f"{name}.lora.up.weight", f"{name}.alpha"
