"""Files of random tensors, always the same ones for the same seed and shapes."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_shapes import Shapes
from torch import Tensor


def save_random(shapes: Shapes, path: Path, seed: int, dtype: torch.dtype) -> None:
    """Write a safetensors file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: random_tensor(name, shape, generator).to(dtype) for name, shape in shapes.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw a matrix that keeps its input's scale, a gain about one or a bias about zero."""
    noise: Tensor = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 0.1 * noise + (0.0 if name.endswith("bias") else 1.0)
