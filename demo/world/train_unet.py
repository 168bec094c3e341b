"""Trains the UNet on latents of drawn pictures and their captions: python -m demo.world.train_unet FOLDER [--steps N]

Noise prediction on SDXL's schedule, as SDXL was trained, but weighed so that an error counts by what it does to the
picture: of nearly clean pictures less (min-SNR, arXiv:2303.09556), of nearly pure noise more, as if velocity were
predicted (arXiv:2202.00512). By plain noise prediction so short a training learns nothing of what noise decides first,
colours and places. A caption tells each part of its scene or leaves it out, and now and then all of them. Weights that
an earlier training left in the folder are gone on from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import models, train_latents
from .assembly import schedule
from .clip import trained_towers
from .dataset import pictures, scenes
from .descent import Descent, keep
from .progress import Curve
from .prompts import Prompts, read_prompts
from .scenes import Scene

SAID_SHARE = {"subject": 0.85, "layout": 0.6, "palette": 0.6, "texture": 0.6}  # how often a caption tells each part
EMPTY_SHARE = 0.1  # of captions that say nothing, for classifier-free guidance
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


def random_caption(scene: Scene, rng: np.random.Generator) -> str:
    if rng.random() < EMPTY_SHARE:
        return ""
    parts = frozenset(part for part, share in SAID_SHARE.items() if rng.random() < share)
    return scene.caption(parts)


class Captions:
    """Every caption once, with what the text towers make of it."""

    def __init__(self, shown: list[Scene], per_scene: int = 4) -> None:
        rng = np.random.default_rng(1)
        said = [[random_caption(scene, rng) for _ in range(per_scene)] for scene in shown]
        number = {caption: i for i, caption in enumerate(dict.fromkeys(x for one in said for x in one))}
        self._numbers = torch.tensor([[number[caption] for caption in one] for one in said])
        self._prompts = read_prompts(trained_towers(), list(number))
        if "" in number:  # as SDXL's pipelines and the WebUI hand over an empty negative prompt
            self._prompts.tokens[number[""]] = 0
            self._prompts.pooled[number[""]] = 0

    def draw(self, picked: Tensor, made: torch.Generator) -> Prompts:
        which = torch.randint(0, self._numbers.shape[1], (len(picked),), generator=made)
        return self._prompts[self._numbers[picked, which]]


def noise_loss(unet: UNet2DConditionModel, clean: Tensor, prompts: Prompts, made: torch.Generator) -> Tensor:
    """Weighted mean squared error of the predicted noise at random times."""
    alphas = schedule().alphas_cumprod
    times = torch.randint(0, len(alphas), (len(clean),), generator=made)
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
        loss = noise_loss(unet, clean[picked], captions.draw(picked, made), made)
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
    parser.add_argument("--steps", type=int, default=3600)
    options = parser.parse_args()
    train(options.folder, options.steps)


if __name__ == "__main__":
    main()
