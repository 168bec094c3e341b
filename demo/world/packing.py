"""The world's trained weights as one small file, and back into full networks.

Matrices are stored in eight bits with one scale per row, the rest in half precision. The text towers are stored with
the few tokens and layers that were trained.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights"
CLIP = WEIGHTS / "clip.safetensors"  # the image encoder and both text towers
WORTH_IT = 4096  # elements from which a matrix is stored in eight bits

State = dict[str, Tensor]


def quantize(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values and float32 scales, one per row of the first dimension: tensor ≈ values · scale."""
    rows = tensor.flatten(1).float()
    scale = rows.abs().amax(1).clamp_min(1e-12) / 127
    return (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape), scale


def pack(state: State) -> State:
    packed: State = {}
    for name, tensor in state.items():
        if tensor.ndim > 1 and tensor.numel() >= WORTH_IT:
            packed[name], packed[f"{name}!scale"] = quantize(tensor)
        else:
            packed[name] = tensor.half() if tensor.is_floating_point() else tensor
    return {name: tensor.contiguous() for name, tensor in packed.items()}


def unpack(packed: State) -> State:
    """Float32 tensors from what `pack` made."""
    return {name: _unpacked(name, packed) for name in packed if not name.endswith("!scale")}


def _unpacked(name: str, packed: State) -> Tensor:
    tensor = packed[name].float()
    scale = packed.get(f"{name}!scale")
    return tensor if scale is None else tensor * scale.view(-1, *[1] * (tensor.ndim - 1))


def write(parts: dict[str, State], path: Path) -> None:
    """Pack several networks' states into one file, each under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(pack({f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}), path)


def read(path: Path) -> dict[str, State]:
    """{network: float32 state} of the packed file."""
    parts: dict[str, State] = {}
    for name, tensor in unpack(load_file(path)).items():
        part, rest = name.split(".", 1)
        parts.setdefault(part, {})[rest] = tensor
    return parts


def text_state(tower: nn.Module) -> State:
    """A text tower's tensors under the published names, which newer transformers shorten."""
    return {
        name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}": tensor
        for name, tensor in tower.state_dict().items()
        if not name.endswith("position_ids")
    }


def load_text_tower(tower: nn.Module, state: State) -> None:
    """Fill a text tower from published names, whatever names this release of transformers gives its tensors."""
    short = "embeddings.token_embedding.weight" in tower.state_dict()
    named = {name.removeprefix("text_model.") if short else name: tensor for name, tensor in state.items()}
    missing, unexpected = tower.load_state_dict(named, strict=False)
    if unexpected or any(not name.endswith("position_ids") for name in missing):
        raise ValueError(f"The text tower's tensors do not fit: {missing} are missing, {unexpected} are unknown.")
