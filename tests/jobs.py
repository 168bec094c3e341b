"""Units, jobs and their traces on a tiny host."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.unit import StyleUnit

from .tiny import TinyHost, picture, sdxl_unet, unet_inputs

STYLE, LAYOUT = "up_blocks.0.attentions.1", "down_blocks.2.attentions.1"


def unit(**fields: Any) -> StyleUnit:
    return StyleUnit(**{"image": (picture(),), "adapter": "base", **fields})


def attach(session: StyleSession, *units: StyleUnit) -> None:
    session.attach(session.plan(units))
    session.call.cond_rows = (False, True)


@torch.no_grad()
def run(unet: nn.Module) -> Tensor:
    return unet(**unet_inputs(2)).sample


def hooked_layers(unet: nn.Module) -> list[str]:
    """Paths of the attn2 that carry both hooks; fails when anything else carries one."""
    query = {path.removesuffix(".to_q") for path, module in unet.named_modules() if module._forward_hooks}
    output = {path.removesuffix(".to_out.0") for path, module in unet.named_modules() if module._forward_pre_hooks}
    assert query == output
    assert query <= {layer.names[0] for layer in attention_layers(unet)}
    return sorted(query)


def changed_world(
    world: Path, folder: Path, adapter: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> TinyHost:
    """A host on a copy of the models in which `change` was applied to the tensors of one adapter."""
    shutil.copytree(world, folder / "world")
    path = folder / "world/adapters" / f"{adapter}.safetensors"
    save_file(change(load_file(str(path))), str(path))
    return TinyHost(sdxl_unet(), folder / "world", folder / "cache")
