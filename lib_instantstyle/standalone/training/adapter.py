"""The adapter while it learns: its parameters have the names of the published files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...files.adapters import Adapter, AdapterInfo
from ...files.image_encoders import Feature
from ...files.projections import HEAD_DIM, ImageProjModel, Resampler
from ...files.whole_files import write_whole
from ...units.blocks import Layer
from .draws import generator

RESAMPLER_DIM = 1280  # of the published SDXL plus adapters, whose context is 2048 wide
SDXL_CONTEXT = 2048
RESAMPLER_DEPTH, FEED_FORWARD = 4, 4


class LayerWeights(nn.Module):
    """to_k_ip and to_v_ip of one layer. They begin as the UNet's own to_k and to_v, as in the official recipe."""

    def __init__(self, to_k: Tensor, to_v: Tensor) -> None:
        super().__init__()
        self.to_k_ip, self.to_v_ip = _linear(to_k), _linear(to_v)


class LearningAdapter(nn.Module):
    """An image projection and the layers of the chosen blocks, in float32."""

    def __init__(self, projection: nn.Module, layers: Mapping[Layer, LayerWeights]) -> None:
        super().__init__()
        self.image_proj = projection.train().requires_grad_(True)
        self.ip_adapter = nn.ModuleDict({str(2 * layer.index + 1): one for layer, one in layers.items()})

    def weights(self, layer: Layer) -> LayerWeights:
        found = self.ip_adapter[str(2 * layer.index + 1)]
        assert isinstance(found, LayerWeights)
        return found

    def save(self, path: Path, told: Mapping[str, str], dtype: torch.dtype = torch.float16) -> None:
        """Write a file in the published key format, whole or not at all; `told` becomes its metadata."""
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in self.state_dict().items()}
        write_whole(path, lambda partial: save_file(tensors, str(partial), metadata={"format": "pt", **told}))


def new_adapter(projection: nn.Module, modules: Mapping[Layer, Any], trained: Sequence[Layer]) -> LearningAdapter:
    """An adapter whose layers begin as the UNet's own; modules: the UNet's attn2 by layer."""
    own = {x: LayerWeights(modules[x].to_k.weight, modules[x].to_v.weight) for x in trained}
    return LearningAdapter(projection, own)


def opened_adapter(info: AdapterInfo, modules: Mapping[Layer, Any], trained: Sequence[Layer]) -> LearningAdapter:
    """The adapter of a file, to go on from; layers that the file lacks begin as the UNet's own."""
    info.check_fits(modules)
    file = Adapter(info)
    made = new_adapter(file.projection(), modules, trained)
    for layer in trained:
        if layer.index in info.layer_widths:
            weights = made.weights(layer)
            weights.to_k_ip, weights.to_v_ip = _linear(file.to_k_ip(layer)), _linear(file.to_v_ip(layer))
    return made


def new_projection(feature: Feature, context: int, tokens: int, seed: int) -> nn.Module:
    """A projection of random weights, the same for the same seed; the generators of torch are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "projection").initial_seed())
        if feature.kind == "pooled":
            return ImageProjModel(feature.width, context, tokens)
        made = Resampler(_resampler_shapes(feature.width, context, tokens), context)
        nn.init.normal_(made.latents, std=made.latents.shape[-1] ** -0.5)
        return made


def _resampler_shapes(width: int, context: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """What the sizes of a Resampler are read off, as in a published file."""
    dim = RESAMPLER_DIM if context == SDXL_CONTEXT else context
    inner = max(dim // HEAD_DIM, 1) * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"latents": (1, tokens, dim), "proj_in.weight": (dim, width)}
    for depth in range(RESAMPLER_DEPTH):
        shapes[f"layers.{depth}.0.to_q.weight"] = (inner, dim)
        shapes[f"layers.{depth}.1.1.weight"] = (FEED_FORWARD * dim, dim)
    return shapes


def _linear(weight: Tensor) -> nn.Linear:
    """A layer without bias that holds a float32 copy of the weight, (out, in), and learns."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.weight = nn.Parameter(weight.detach().float().cpu().clone())
    return made
