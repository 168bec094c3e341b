"""Teaches the checkpoint's autoencoder the world's latents: python -m demo.world.train_vae FOLDER [--steps N]

The encoder learns to give the latents that train_latents has settled, but for their chessboard, which it cannot see;
the decoder to draw pictures from them. Neither waits for the other, nor for the UNet. Weights that an earlier training
left in the folder are gone on from.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor

from . import models
from .dataset import pictures, scenes
from .descent import Descent, keep
from .first_guess import SPREAD, begin_with_colours, hold_offsets
from .progress import Curve
from .train_latents import CELL, NOISE, Cells, as_pixels, board, edges
from .train_latents import trained as trained_cells

CROP = 8  # cells of a side that the decoder sees at once


def loss_of(vae: AutoencoderKL, pixels: Tensor, cells: Cells) -> Tensor:
    """What both halves get wrong, with pixels (n, 3, side, side) from −1 to 1."""
    with torch.no_grad():
        latents = cells.encode(pixels)
    posterior = vae.encode(pixels).latent_dist
    spread = (posterior.logvar - 2 * math.log(SPREAD)).square().mean()
    encoded = (posterior.mean - (latents - board(latents))).abs().mean() + spread / 100
    seen, wanted = _crops(latents, pixels)
    drawn = vae.decode(seen + NOISE * torch.randn_like(seen)).sample
    return (drawn - wanted).abs().mean() + edges(drawn - wanted) + encoded


def _crops(latents: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The same random part of each picture, as latents and as pixels."""
    top, left = torch.randint(0, latents.shape[-1] - CROP + 1, (2,)).tolist()
    rows, columns = slice(top, top + CROP), slice(left, left + CROP)
    fine_rows, fine_columns = slice(CELL * top, CELL * (top + CROP)), slice(CELL * left, CELL * (left + CROP))
    return latents[..., rows, columns], pixels[..., fine_rows, fine_columns]


def train(folder: Path, steps: int, batch: int = 12, rate: float = 8e-4) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pixels = pictures(folder, scenes(24000, 1), "train")
    cells, vae = trained_cells(folder), models.vae().to(memory_format=torch.channels_last)
    begin_with_colours(vae)
    if (folder / "vae.safetensors").exists():
        vae.load_state_dict(load_file(folder / "vae.safetensors"))
    hold_offsets(vae)
    descent = Descent(vae, steps, rate, warm=0.05)
    descent.clip_apart(vae.encoder, vae.decoder)
    curve = Curve(folder / "vae.csv")
    for step in range(steps):
        picked = as_pixels(pixels[rng.choice(len(pixels), batch, replace=False)])
        loss = loss_of(vae, picked.contiguous(memory_format=torch.channels_last), cells)
        curve.add(step, descent.step(loss))
        if step % 100 == 99 or step + 1 == steps:
            keep(vae, folder / "vae.safetensors")


def trained(folder: Path) -> AutoencoderKL:
    """The autoencoder that training left in the folder."""
    vae = models.vae()
    vae.load_state_dict(load_file(folder / "vae.safetensors"))
    return vae.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach the checkpoint's autoencoder the world's latents.")
    parser.add_argument("folder", type=Path, help="where train_latents has left its weights")
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    train(options.folder, options.steps)


if __name__ == "__main__":
    main()
