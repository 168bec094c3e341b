"""Trains the judge on drawn pictures of all combinations: python -m demo.world.train_judge FOLDER [--steps N]

Half of the pictures have gone through latents with noise on them, so that it also knows pictures drawn by a decoder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import packing, train_latents
from .dataset import pictures, scenes
from .descent import Descent
from .judge import JUDGE, Judge, truth
from .progress import Curve

MOST_NOISE = 0.4  # in latents of about unit variance


def train(folder: Path, steps: int, batch: int = 32, rate: float = 2e-3) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shown = scenes(24000, 1), scenes(4000, 3, held_out=True)
    pixels = [pictures(folder, one, name) for one, name in zip(shown, ("train", "held-out"))]
    right = [truth(one) for one in shown]
    cells, judge = train_latents.trained(folder), Judge().to(memory_format=torch.channels_last)
    descent = Descent(judge, steps, rate, decay=0.05, beta=0.999)
    curve = Curve(folder / "judge.csv")
    for step in range(steps):
        which = int(rng.random() < len(shown[1]) / (len(shown[0]) + len(shown[1])))
        picked = rng.choice(len(shown[which]), batch, replace=False)
        seen = _worn(train_latents.as_pixels(pixels[which][picked]), cells)
        loss = sum(functional.cross_entropy(a, right[which][picked, i]) for i, a in enumerate(judge(seen)))
        curve.add(step, descent.step(loss))
    packing.write({"judge": judge.state_dict()}, JUDGE)


@torch.no_grad()
def _worn(pixels: Tensor, cells: train_latents.Cells) -> Tensor:
    """The pictures, half of them drawn again from noisy latents."""
    half = len(pixels) // 2
    latents = cells.encode(pixels[:half])
    strength = MOST_NOISE * torch.rand(half, 1, 1, 1)
    again = cells.decode(latents + strength * torch.randn_like(latents)).clamp(-1, 1)
    return torch.cat([again, pixels[half:]]).contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the judge and write the packed weights that ship.")
    parser.add_argument("folder", type=Path, help="where train_latents has left its weights")
    parser.add_argument("--steps", type=int, default=1200)
    options = parser.parse_args()
    train(options.folder, options.steps)


if __name__ == "__main__":
    main()
