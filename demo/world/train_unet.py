"""Trains the UNet on latents of drawn pictures and their captions: python -m demo.world.train_unet FOLDER [--steps N]

Noise prediction on SDXL's schedule, as SDXL was trained, but weighed so that an error counts by what it does to the
picture: of nearly clean pictures less (min-SNR, arXiv:2303.09556), of nearly pure noise more, as if velocity were
predicted (arXiv:2202.00512). By plain noise prediction so short a training learns nothing of what noise decides first,
colours and places. In most steps single blocks are taught their work, see `captions`. Weights that an earlier training
left in the folder are gone on from.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import models, train_latents
from .assembly import schedule
from .captions import Captions, each_block_its_words
from .dataset import pictures, scenes
from .descent import Descent, keep
from .progress import Curve
from .prompts import Prompts
from .scenes import Scene

TAUGHT_SHARE = 0.9  # of the steps in which each block hears its own words only
NOISY_SHARE = 0.5  # of the examples from the noisiest fifth of the schedule, beside those that fall there anyway
SNR_CAP = 5.0
AVERAGED = 400.0  # steps that the weights which are kept are an average of
TIME_IDS = torch.zeros(6)  # sizes and crops, which the world does not read


def kept_latents(folder: Path) -> tuple[list[Scene], Tensor]:
    """The training scenes and their latents (n, 4, side / 8, side / 8), computed once and kept in the folder."""
    shown, path = scenes(24000, 1), folder / "latents.safetensors"
    if not path.exists():
        save_file({"latents": latents_of(train_latents.trained(folder), pictures(folder, shown, "train"))}, path)
    return shown, load_file(path)["latents"] * models.VAE_SCALE


@torch.no_grad()
def latents_of(cells: train_latents.Cells, pixels: np.ndarray, batch: int = 48) -> Tensor:
    starts = range(0, len(pixels), batch)
    parts = [cells.encode(train_latents.as_pixels(pixels[start : start + batch])) for start in starts]
    return torch.cat(parts).contiguous()


def random_times(count: int, made: torch.Generator) -> Tensor:
    """Often the noisiest fifth: there words decide, elsewhere a noisy picture says much of what they do."""
    steps = len(schedule().alphas_cumprod)
    anywhere, noisy = (torch.randint(start, steps, (count,), generator=made) for start in (0, steps - steps // 5))
    return torch.where(torch.rand(count, generator=made) < NOISY_SHARE, noisy, anywhere)


def noise_loss(unet: UNet2DConditionModel, clean: Tensor, prompts: Prompts, made: torch.Generator) -> Tensor:
    """Weighted mean squared error of the predicted noise at random times."""
    alphas = schedule().alphas_cumprod
    times = random_times(len(clean), made)
    kept = alphas[times].view(-1, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=made)
    noisy = (kept.sqrt() * clean + (1 - kept).sqrt() * noise).contiguous(memory_format=torch.channels_last)
    added = {"text_embeds": prompts.pooled, "time_ids": TIME_IDS.expand(len(clean), -1)}
    predicted = unet(noisy, times, prompts.tokens, encoder_attention_mask=prompts.mask, added_cond_kwargs=added).sample
    snr = kept / (1 - kept)
    weight = (snr.clamp(max=SNR_CAP) / snr) * (1 + 1 / snr)
    return ((predicted - noise).square() * weight).mean()


def _moving_average(average: Tensor, new: Tensor, count: Tensor) -> Tensor:
    """Exponential, over few steps at first: what training began with is soon forgotten."""
    return average + (new - average) / torch.clamp(count / 4 + 1, max=AVERAGED)


def train(folder: Path, steps: int, batch: int = 32, rate: float = 1e-3) -> None:
    torch.manual_seed(0)
    made = torch.Generator().manual_seed(0)
    shown, clean = kept_latents(folder)
    captions = Captions(shown)
    unet = models.unet(models.TRAINED_DEPTHS).to(memory_format=torch.channels_last)
    if (folder / "unet.safetensors").exists():
        unet.load_state_dict(load_file(folder / "unet.safetensors"))
    average = torch.optim.swa_utils.AveragedModel(unet, avg_fn=_moving_average)
    descent = Descent(unet, steps, rate, decay=0.01, warm=0.05)
    curve = Curve(folder / "unet.csv")
    for step in range(steps):
        picked = torch.randint(0, len(clean), (batch,), generator=made)
        lesson = captions.draw(picked, made)
        taught = torch.rand(1, generator=made).item() < TAUGHT_SHARE
        with each_block_its_words(unet, lesson) if taught else nullcontext(lesson.whole) as prompts:
            loss = noise_loss(unet, clean[picked], prompts, made)
        curve.add(step, descent.step(loss))
        average.update_parameters(unet)
        if step % 200 == 199 or step + 1 == steps:
            keep(average.module, folder / "unet.safetensors")


def trained(folder: Path) -> UNet2DConditionModel:
    """The UNet that training left in the folder, with the trained layers only."""
    unet = models.unet(models.TRAINED_DEPTHS)
    unet.load_state_dict(load_file(folder / "unet.safetensors"))
    return unet.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the world's UNet.")
    parser.add_argument(
        "folder", type=Path, help="where train_latents has left its weights; everything else goes there too"
    )
    parser.add_argument("--steps", type=int, default=6000)
    options = parser.parse_args()
    train(options.folder, options.steps)


if __name__ == "__main__":
    main()
