"""Teaches the checkpoint's autoencoder the world's latents: python -m demo.world.train_vae FOLDER [--steps N]

The encoder learns to give the latents that train_latents has settled, the decoder to draw pictures from them; neither
waits for the other, nor for the UNet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import models
from .dataset import pictures, scenes
from .progress import Curve
from .train_latents import NOISE, Cells, as_pixels, edges
from .train_latents import trained as trained_cells

SPREAD = 0.05  # deviation of the encoder's posterior, in latents of about unit variance


def loss_of(vae: AutoencoderKL, pixels: Tensor, cells: Cells) -> Tensor:
    """What both halves get wrong, with pixels (n, 3, side, side) from −1 to 1."""
    with torch.no_grad():
        latents = cells.encode(pixels)
    drawn = vae.decode(latents + NOISE * torch.randn_like(latents)).sample
    posterior = vae.encode(pixels).latent_dist
    encoded = (posterior.mean - latents).abs().mean() + (posterior.logvar - 2 * np.log(SPREAD)).square().mean() / 100
    return (drawn - pixels).abs().mean() + edges(drawn - pixels) + encoded


def train(folder: Path, steps: int, batch: int = 4, rate: float = 2e-3) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pixels = pictures(folder, scenes(24000, 1), "train")
    cells, vae = trained_cells(folder), models.vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    curve = Curve(folder / "vae.csv")
    for step in range(steps):
        picked = as_pixels(pixels[rng.choice(len(pixels), batch, replace=False)])
        loss = loss_of(vae, picked.contiguous(memory_format=torch.channels_last), cells)
        optimizer.zero_grad()
        loss.backward()
        for half in (vae.encoder, vae.decoder):
            nn.utils.clip_grad_norm_(half.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.add(step, loss.item())
        if step % 100 == 99 or step + 1 == steps:
            save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, folder / "vae.safetensors")


def trained(folder: Path) -> AutoencoderKL:
    """The autoencoder that training left in the folder."""
    vae = models.vae()
    vae.load_state_dict(load_file(folder / "vae.safetensors"))
    return vae.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach the checkpoint's autoencoder the world's latents.")
    parser.add_argument("folder", type=Path, help="where train_latents has left its weights")
    parser.add_argument("--steps", type=int, default=2500)
    options = parser.parse_args()
    train(options.folder, options.steps)


if __name__ == "__main__":
    main()
