"""IP-Adapters for a given UNet, in the published key format. Every bias and norm differs from its neutral value."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .unets import CONTEXT

NestedTensors = dict[str, dict[str, Tensor]]
RESAMPLER = {"dim": 64, "inner": 128, "depth": 4, "hidden": 256}  # two heads of 64; depth and 4·dim as published


def base_adapter(unet: nn.Module, embed_dim: int, tokens: int = 4, seed: int = 0) -> NestedTensors:
    """ImageProjModel and the layers of every block."""
    made = torch.Generator().manual_seed(seed)
    projection = {**_linear(made, "proj", embed_dim, tokens * CONTEXT), **_norm(made, "norm", CONTEXT)}
    return {"image_proj": projection, "ip_adapter": _layers(made, unet)}


def plus_adapter(unet: nn.Module, hidden: int, tokens: int = 16, seed: int = 0) -> NestedTensors:
    """Resampler and the layers of every block."""
    made = torch.Generator().manual_seed(seed)
    dim = RESAMPLER["dim"]
    projection = {
        "latents": torch.randn(1, tokens, dim, generator=made),
        **_linear(made, "proj_in", hidden, dim),
        **_linear(made, "proj_out", dim, CONTEXT),
        **_norm(made, "norm_out", CONTEXT),
    }
    for number in range(RESAMPLER["depth"]):
        projection |= _resampler_layer(made, f"layers.{number}")
    return {"image_proj": projection, "ip_adapter": _layers(made, unet)}


def _resampler_layer(made: torch.Generator, name: str) -> dict[str, Tensor]:
    dim, inner, hidden = RESAMPLER["dim"], RESAMPLER["inner"], RESAMPLER["hidden"]
    return {
        **_norm(made, f"{name}.0.norm1", dim),
        **_norm(made, f"{name}.0.norm2", dim),
        f"{name}.0.to_q.weight": _weight(made, inner, dim),
        f"{name}.0.to_kv.weight": _weight(made, 2 * inner, dim),
        f"{name}.0.to_out.weight": _weight(made, dim, inner),
        **_norm(made, f"{name}.1.0", dim),
        f"{name}.1.1.weight": _weight(made, hidden, dim),
        f"{name}.1.3.weight": _weight(made, dim, hidden),
    }


def _layers(made: torch.Generator, unet: nn.Module) -> dict[str, Tensor]:
    """to_k_ip and to_v_ip of every cross attention, in the order in which diffusers lists a UNet's processors."""
    listed = getattr(unet, "attn_processors", dict(unet.named_modules()))  # in an LdmUnet all widths are the same
    names = [name.removesuffix(".processor") for name in listed if name.removesuffix(".processor").endswith("attn2")]
    return {
        f"{2 * index + 1}.to_{kind}_ip.weight": 2 * _weight(made, unet.get_submodule(name).to_k.out_features, CONTEXT)
        for index, name in enumerate(names)
        for kind in "kv"
    }


def _weight(made: torch.Generator, rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=made) / columns**0.5


def _linear(made: torch.Generator, name: str, width: int, rows: int) -> dict[str, Tensor]:
    return {f"{name}.weight": _weight(made, rows, width), f"{name}.bias": torch.randn(rows, generator=made)}


def _norm(made: torch.Generator, name: str, width: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": 1 + 0.3 * torch.randn(width, generator=made),
        f"{name}.bias": 0.3 * torch.randn(width, generator=made),
    }


def save_adapter(adapter: NestedTensors, path: Path, names: dict[str, str] | None = None) -> Path:
    """Write an adapter: .bin nested, anything else flat. `names` replaces the names of its two parts."""
    renamed = {(names or {}).get(part, part): tensors for part, tensors in adapter.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = {f"{part}.{name}": tensor for part, tensors in renamed.items() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        save_file(flat, str(path))
    else:
        torch.save(renamed if path.suffix == ".bin" else flat, path)
    return path
