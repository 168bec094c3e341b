"""The judge: a small classifier that says what a picture of the world shows. It takes no part in making pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from . import packing
from .drawing import SIDE
from .scenes import KINDS, Scene, labels
from .train_latents import as_pixels

JUDGE = packing.WEIGHTS / "judge.safetensors"


@dataclass(frozen=True)
class Verdict:
    """What one picture shows, by name."""

    subject: str
    place: str
    size: str
    palette: str
    texture: str


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(functional.silu(self.inner(functional.silu(self.norm(x)))))


def _smaller(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.SiLU())


class Judge(nn.Module):
    """(n, 3, side, side) pixels from −1 to 1 → logits for each of KINDS."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _smaller(3, 24), _smaller(24, 48), _Residual(48), _smaller(48, 96), _Residual(96), _smaller(96, 96),
            _Residual(96), nn.AdaptiveAvgPool2d(4), nn.Conv2d(96, 48, 1), nn.SiLU(), nn.Flatten(), nn.Dropout(0.2),
        )  # fmt: skip
        self.heads = nn.ModuleList(nn.Linear(48 * 16, len(kind)) for kind in KINDS)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        seen = self.body(pixels)
        return [head(seen) for head in self.heads]

    @torch.no_grad()
    def judge(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """What pictures of any size show."""
        sized = [np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in images]
        numbers = torch.stack([logit.argmax(-1) for logit in self(as_pixels(np.stack(sized)))], 1).tolist()
        return [Verdict(*(kind[number] for kind, number in zip(KINDS, row))) for row in numbers]


def truth(shown: Sequence[Scene]) -> Tensor:
    """(n, 5) class numbers."""
    return torch.tensor([labels(scene) for scene in shown])


@lru_cache
def trained_judge(path: Path = JUDGE) -> Judge:
    """The judge that ships with the project."""
    judge = Judge()
    judge.load_state_dict(packing.read(path)["judge"])
    return judge.eval().requires_grad_(False)
