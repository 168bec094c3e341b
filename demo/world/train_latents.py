"""Trains what the world's latents are: python -m demo.world.train_latents FOLDER [--steps N]

A cell of eight by eight pixels becomes four numbers: its mean colour, and one more by which a small network tells how
to draw the cell. A head that names the texture from it is thrown away afterwards; without it the number tells strokes
from everything else and nothing more. A chessboard is laid over that fourth number: strokes as wide as a cell would
leave the latents of a plain area all the same, and an autoencoder of SDXL's kind, which only ever repeats and
convolves, can draw nothing but plain areas from those. The UNet learns on these latents; the autoencoder of the
checkpoint (train_vae) is taught to give the same latents and to draw them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from .dataset import pictures, scenes
from .descent import Descent, keep
from .progress import Curve
from .scenes import TEXTURES

CELL = 8  # pixels
COLOUR_SCALE = 2.0  # mean colours from −1 to 1 have a deviation near 0.5
NAME_WEIGHT = 0.1
BOARD = 0.5  # what the chessboard adds and takes away
NOISE = 0.1  # added to latents while the network learns to draw them; a UNet's are no better


def as_pixels(batch: np.ndarray) -> Tensor:
    """(n, side, side, 3) uint8 → (n, 3, side, side) from −1 to 1."""
    return torch.tensor(batch).permute(0, 3, 1, 2).float() / 127.5 - 1


def board(latents: Tensor) -> Tensor:
    """(4, height, width) the chessboard, in the last channel."""
    rows, columns = (torch.arange(side) for side in latents.shape[-2:])
    squares = BOARD * (1 - 2 * ((rows[:, None] + columns) % 2)).to(latents)
    return torch.cat([torch.zeros(3, *squares.shape).to(latents), squares[None]])


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(functional.silu(self.inner(functional.silu(x))))


class Cells(nn.Module):
    """Pictures to latents and back, one cell a place."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, width, CELL, stride=CELL)
        self.see = nn.Sequential(Block(width), nn.SiLU(), nn.Conv2d(width, 1, 1))
        self.draw = nn.Sequential(
            nn.Conv2d(4, width, 3, padding=1), Block(width), Block(width), nn.SiLU(), nn.Conv2d(width, 3 * CELL**2, 1)
        )

        self.name = nn.Sequential(nn.Conv2d(4, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, len(TEXTURES), 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """(n, 3, side, side) from −1 to 1 → (n, 4, side / 8, side / 8)."""
        free = self.see(self.look(pixels))
        latents = torch.cat([COLOUR_SCALE * functional.avg_pool2d(pixels, CELL), free], 1)
        return latents + board(latents)

    def decode(self, latents: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.draw(latents - board(latents)), CELL)

    def loss(self, pixels: Tensor, textures: Tensor) -> Tensor:
        """pixels (n, 3, side, side), textures (n) by number."""
        latents = self.encode(pixels)
        far = (latents[:, 3].std() - 1).square() + latents[:, 3].mean().square()
        noisy = latents + NOISE * torch.randn_like(latents)
        drawn = self.decode(noisy)
        named = functional.cross_entropy(self.name(noisy - board(noisy)).flatten(2).mean(-1), textures)
        return (drawn - pixels).abs().mean() + edges(drawn - pixels) + 0.1 * far + NAME_WEIGHT * named


def edges(error: Tensor) -> Tensor:
    """How much neighbouring pixels' errors differ: what makes strokes sharp."""
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def train(folder: Path, steps: int, batch: int = 24, rate: float = 2e-3) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shown = scenes(24000, 1)
    textures = torch.tensor([TEXTURES.index(scene.texture) for scene in shown])
    pixels = pictures(folder, shown, "train")
    cells = Cells().to(memory_format=torch.channels_last)
    descent = Descent(cells, steps, rate)
    curve = Curve(folder / "latents.csv")
    for step in range(steps):
        picked = rng.choice(len(pixels), batch, replace=False)
        drawn = as_pixels(pixels[picked]).contiguous(memory_format=torch.channels_last)
        loss = cells.loss(drawn, textures[picked])
        curve.add(step, descent.step(loss))
    keep(cells, folder / "cells.safetensors")


def trained(folder: Path) -> Cells:
    """The network that training left in the folder."""
    cells = Cells()
    cells.load_state_dict(load_file(folder / "cells.safetensors"))
    return cells.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train what the world's latents are.")
    parser.add_argument("folder", type=Path, help="where pictures, the curve and the weights go")
    parser.add_argument("--steps", type=int, default=1200)
    options = parser.parse_args()
    train(options.folder, options.steps)


if __name__ == "__main__":
    main()
