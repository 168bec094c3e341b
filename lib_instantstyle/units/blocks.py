"""Names of a UNet's cross-attention blocks and layers, in both notations, and what an address means.

A *block* is one spatial transformer (SDXL has 11), a *layer* one cross-attention `attn2` in it (SDXL has 70).
diffusers' names are the primary keys; the ldm/sgm names of the WebUI are accepted wherever an address is:

    down_blocks.i.attentions.j = input_blocks.(3i+j+1).1
    up_blocks.i.attentions.j   = output_blocks.(3i+j).1
    mid_block.attentions.0     = middle_block.1
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from .errors import IncompatibleModelError, UnknownBlockError

# In checkpoint order: down, up, mid last. The order numbers the layers of an adapter file.
SDXL_BLOCKS = (
    *(f"down_blocks.{i}.attentions.{j}" for i in (1, 2) for j in (0, 1)),
    *(f"up_blocks.{i}.attentions.{j}" for i in (0, 1) for j in (0, 1, 2)),
    "mid_block.attentions.0",
)
SD15_BLOCKS = (
    *(f"down_blocks.{i}.attentions.{j}" for i in (0, 1, 2) for j in (0, 1)),
    *(f"up_blocks.{i}.attentions.{j}" for i in (1, 2, 3) for j in (0, 1, 2)),
    "mid_block.attentions.0",
)
SDXL_DEPTHS = (2, 2, 10, 10, 10, 10, 10, 2, 2, 2, 10)  # layers of each SDXL block, same order

_LAYER_PATH = re.compile(r"^(?P<block>.+)\.transformer_blocks\.(?P<depth>\d+)\.attn2$")
_LDM_BLOCK = re.compile(r"^(?P<side>input_blocks|output_blocks)\.(?P<number>\d+)\.1$")


@dataclass(frozen=True)
class Layer:
    """One cross-attention of a UNet."""

    block: str  # diffusers name of its block
    depth: int  # position inside the block, from 0
    index: int  # position among all layers in checkpoint order; its keys in an adapter file start with 2·index + 1

    @property
    def names(self) -> tuple[str, str]:
        """The layer's path in diffusers' notation and in ldm notation."""
        tail = f"transformer_blocks.{self.depth}.attn2"
        return f"{self.block}.{tail}", f"{ldm_name(self.block)}.{tail}"


def ldm_name(block: str) -> str:
    """The ldm/sgm name of a block given in diffusers' notation."""
    side, *rest = block.split(".")
    if side == "mid_block":
        return "middle_block.1"
    i, j = int(rest[0]), int(rest[2])
    return f"input_blocks.{3 * i + j + 1}.1" if side == "down_blocks" else f"output_blocks.{3 * i + j}.1"


def diffusers_name(block: str) -> str:
    """The diffusers name of a block given in either notation."""
    if block == "middle_block.1":
        return "mid_block.attentions.0"
    found = _LDM_BLOCK.match(block)
    if not found:
        return block
    number = int(found["number"])
    if found["side"] == "output_blocks":
        return f"up_blocks.{number // 3}.attentions.{number % 3}"
    return f"down_blocks.{(number - 1) // 3}.attentions.{(number - 1) % 3}"


def number_layers(blocks: Sequence[str], depths: Sequence[int]) -> tuple[Layer, ...]:
    """All layers of a UNet, numbered in the order of `blocks` (checkpoint order)."""
    flat = [(block, depth) for block, count in zip(blocks, depths) for depth in range(count)]
    return tuple(Layer(block, depth, index) for index, (block, depth) in enumerate(flat))


SDXL_LAYERS = number_layers(SDXL_BLOCKS, SDXL_DEPTHS)


def attention_layers(unet: nn.Module) -> dict[Layer, nn.Module]:
    """The `attn2` modules of a live SDXL UNet (sgm or diffusers), by layer.

    How many layers a block has is read off the UNet, so narrow and shallow models of SDXL's layout count too.
    Raises IncompatibleModelError for any other layout.
    """
    found = _attn2_modules(unet)
    blocks = {block for block, _ in found}
    if blocks != set(SDXL_BLOCKS):
        raise IncompatibleModelError(_wrong_layout(blocks))
    depths = [sum(block == name for block, _ in found) for name in SDXL_BLOCKS]
    return {layer: found[layer.block, layer.depth] for layer in number_layers(SDXL_BLOCKS, depths)}


def self_attention_layers(unet: nn.Module) -> dict[Layer, nn.Module]:
    """The `attn1` modules of a live SDXL UNet, by the layer whose `attn2` lies beside them. Raises as above."""
    modules = dict(unet.named_modules())
    beside = {module: path.removesuffix("attn2") for path, module in modules.items() if path.endswith(".attn2")}
    return {layer: modules[f"{beside[attn2]}attn1"] for layer, attn2 in attention_layers(unet).items()}


def _attn2_modules(unet: nn.Module) -> dict[tuple[str, int], nn.Module]:
    paths = ((_LAYER_PATH.match(path), module) for path, module in unet.named_modules())
    return {(diffusers_name(path["block"]), int(path["depth"])): module for path, module in paths if path}


def _wrong_layout(blocks: set[str]) -> str:
    rule = "InstantStyle needs an SDXL checkpoint"
    if blocks == set(SD15_BLOCKS):
        return f"{rule}, but the loaded one has the blocks of SD 1.5 or SD 2. Choose an SDXL checkpoint."
    missing = ", ".join(sorted(set(SDXL_BLOCKS) - blocks)) or "none"
    surplus = ", ".join(sorted(blocks - set(SDXL_BLOCKS))) or "none"
    return (
        f"{rule}; the loaded one (a refiner, SSD-1B or another family?) lacks the cross-attention blocks {missing} "
        f"and has in addition: {surplus}. Choose an SDXL base checkpoint."
    )


def layers_at(address: str, layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers that an address names: those whose path, in either notation, begins with its dotted segments.

    Raises UnknownBlockError, listing the blocks that exist, when there is none.
    """
    every = tuple(layers)
    wanted = address.strip().split(".")
    named = tuple(x for x in every if any(name.split(".")[: len(wanted)] == wanted for name in x.names))
    if not named:
        blocks = dict.fromkeys(layer.block for layer in every)
        listed = ", ".join(f"{block} (= {ldm_name(block)})" for block in blocks)
        raise UnknownBlockError(f"{address[:80]!r} is not a cross-attention block. Blocks: {listed}.")
    return named
