"""The UNet's numbers as Forge and Forge Neo keep them to save memory: float8, GGUF's and bitsandbytes' packed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from oracle import STYLE
from torch import Tensor, nn

Quantise = Callable[[nn.Module], nn.Module]  # a linear layer → the same one, packed


@contextmanager
def stored_as(dtype: torch.dtype) -> Iterator[None]:
    """As *Diffusion in Low Bits* has the checkpoint loaded."""
    from modules import sd_models

    data = sd_models.model_data
    asked = {**data.forge_loading_parameters, "unet_storage_dtype": dtype}
    with mock.patch.object(data, "forge_loading_parameters", asked):
        yield


@contextmanager
def packed(unet: Callable[[], nn.Module], quantise: Quantise) -> Iterator[None]:
    """Every linear layer in the styled block's cross-attentions is exchanged for a packed one, of the WebUI's class for
    files in which all layers are."""
    attentions = [
        module for name, module in unet().named_modules() if name.startswith(STYLE) and name.endswith("attn2")
    ]
    places = [(one, name) for one in attentions for name in ("to_q", "to_k", "to_v")]
    places += [(one.to_out, "0") for one in attentions]
    kept = [(place, name, place.get_submodule(name)) for place, name in places]
    for place, name, own in kept:
        place.register_module(name, quantise(own))
    try:
        yield
    finally:
        for place, name, own in kept:
            place.register_module(name, own)


def as_gguf(layer: Any) -> nn.Module:
    from backend.operations import ForgeOperationsGGUF

    new = ForgeOperationsGGUF.Linear()
    new.weight, new.bias = _in_blocks(layer.weight.detach().float()), layer.bias
    new.parameters_manual_cast = True
    return new


def _in_blocks(matrix: Tensor) -> Any:
    """As 8 bits for each number and 16 for each 32 of them."""
    from backend import operations_gguf as ops

    kinds = ops.gguf.GGMLQuantizationType
    blocks = ops.gguf.quants.quantize(matrix.numpy(), kinds.Q8_0)
    made = _read_from(blocks, kinds.Q8_0, matrix.shape)
    made.computation_dtype = torch.float16
    made.gguf_cls.bake(made)
    return made


def _read_from(blocks: Any, kind: Any, shape: torch.Size) -> Any:
    """The WebUI's parameter, as each makes it when it reads a file."""
    from backend.operations_gguf import ParameterGGUF

    try:
        return ParameterGGUF(torch.from_numpy(blocks), tensor_type=kind, tensor_shape=shape)
    except TypeError:  # Forge's takes what the file's reader gives
        return ParameterGGUF(SimpleNamespace(data=blocks, tensor_type=kind, shape=tuple(reversed(shape))))


def as_nf4(layer: Any) -> nn.Module:
    from backend.operations import ForgeOperationsBNB4bits, using_forge_operations
    from backend.operations_bnb import ForgeParams4bit

    with using_forge_operations(device=torch.device("cpu"), dtype=torch.float32, bnb_dtype="nf4"):
        new = ForgeOperationsBNB4bits.Linear()
    how = {"compress_statistics": False, "blocksize": 64, "quant_type": "nf4", "quant_storage": torch.uint8}
    new.weight = ForgeParams4bit(layer.weight.detach().float(), requires_grad=False, **how)._quantize("cpu")
    new.bias = layer.bias
    return new
