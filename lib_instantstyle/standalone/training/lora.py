"""A B-LoRA while it learns (arXiv:2403.14572): low-rank pairs on both attentions of a few blocks, from one picture.

    y = W x + up (down x)                                         alpha is the rank, so nothing else scales the product

`down` begins as normal numbers of deviation 1 / rank, `up` as zeros (yardenfren1996/B-LoRA@e08380d).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ...files.whole_files import write_whole
from ...style.low_rank import linear_widths
from ...units.blocks import Layer
from .draws import generator

FILE = "b-lora.safetensors"  # in the output folder
LEAVES = tuple(f"{one}.{leaf}" for one in ("attn1", "attn2") for leaf in ("to_q", "to_k", "to_v", "to_out.0"))


class Pair(nn.Module):
    """The two matrices of one linear layer, in float32."""

    def __init__(self, down: Tensor, out: int) -> None:
        super().__init__()
        self.down = nn.Parameter(down)  # (rank, in)
        self.up = nn.Parameter(torch.zeros(out, len(down)))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return functional.linear(functional.linear(x.to(self.down), self.down), self.up)


class LearningLora(nn.Module):
    """The pairs of some linear layers. `places`: their paths in a diffusers UNet, each with its layer's index."""

    def __init__(self, pairs: Mapping[str, Pair], places: Mapping[str, int]) -> None:
        super().__init__()
        self.places = dict(places)
        self.pairs = nn.ModuleDict({_key(path): pair for path, pair in pairs.items()})

    def pair(self, path: str) -> Pair:
        found = self.pairs[_key(path)]
        assert isinstance(found, Pair)
        return found

    def save(self, path: Path, told: Mapping[str, str], dtype: torch.dtype = torch.float16) -> None:
        """Write a file with the published keys, whole or not at all; `told` becomes its metadata."""
        tensors = {
            f"unet.{place}.lora.{part}.weight": getattr(self.pair(place), part).detach().to("cpu", dtype).contiguous()
            for place in self.places
            for part in ("down", "up")
        }
        write_whole(path, lambda partial: save_file(tensors, str(partial), metadata={"format": "pt", **told}))


def _key(path: str) -> str:
    return path.replace(".", "/")  # a module's name holds no dot


def new_lora(unet: nn.Module, layers: Sequence[Layer], rank: int, seed: int) -> LearningLora:
    """Pairs for both attentions of these layers of a diffusers UNet, which change nothing yet."""
    inside = [(layer, layer.names[0].removesuffix("attn2")) for layer in layers]
    places = {f"{path}{leaf}": layer.index for layer, path in inside for leaf in LEAVES}
    return LearningLora({path: _new_pair(unet.get_submodule(path), rank, seed, path) for path in places}, places)


def _new_pair(module: nn.Module, rank: int, seed: int, path: str) -> Pair:
    out, width = linear_widths(module)
    return Pair(torch.randn(rank, width, generator=generator(seed, "lora", path)) / rank, out)
