"""The official recipe (tencent-ailab/IP-Adapter@62e4af9, tutorial_train_sdxl.py), on diffusers' noise schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...units.errors import IncompatibleModelError
from .draws import Draw
from .settings import Settings

PREDICTIONS = ("epsilon", "v_prediction")
MOST_SNR = 5.0


def noise_schedule(scheduler: Any) -> Any:
    """The DDPMScheduler that a pipeline's checkpoint was trained with. Raises IncompatibleModelError for others."""
    from diffusers import DDPMScheduler

    made = DDPMScheduler.from_config(scheduler.config)
    if made.config.prediction_type not in PREDICTIONS:
        raise IncompatibleModelError(
            f"The model must predict {' or '.join(PREDICTIONS)}; this one predicts {made.config.prediction_type}."
        )
    return made


def target_of(schedule: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the prediction is held against: the noise, or the velocity."""
    if schedule.config.prediction_type == "epsilon":
        return noise
    return schedule.get_velocity(latents, noise, timesteps)


def loss_weights(schedule: Any, timesteps: Tensor, weighting: str) -> Tensor | None:
    """(n,) what the squared error of each sample counts; None: all the same.

    For "picture" nearly clean pictures count less (min-SNR with 5, arXiv:2303.09556), and nearly pure noise as if
    velocity were predicted (arXiv:2202.00512), since a small error there moves colours and places most.
    """
    from diffusers.training_utils import compute_snr

    if weighting == "noise":
        return None
    snr = compute_snr(schedule, timesteps.cpu())
    held_down = (MOST_SNR / snr).clamp(max=1)
    return held_down * (1 + 1 / snr) if schedule.config.prediction_type == "epsilon" else held_down


def latents_of(moments: Tensor, draws: Sequence[Draw], factor: float) -> Tensor:
    """A sample of the VAE's posterior: moments (n, 2, c, h, w), mean and deviation → (n, c, h, w)."""
    noise = torch.stack([draw.normal("posterior", moments.shape[2:]) for draw in draws])
    return (moments[:, 0] + moments[:, 1] * noise) * factor


def noise_of(draws: Sequence[Draw], shape: Sequence[int], offset: float) -> Tensor:
    """Noise (n, *shape), each channel moved by `offset` times a normal number."""
    noise = torch.stack([draw.normal("noise", shape) for draw in draws])
    if offset:
        noise = noise + offset * torch.stack([draw.normal("offset", (shape[0], 1, 1)) for draw in draws])
    return noise


def dropped(draw: Draw, settings: Settings) -> tuple[bool, bool]:
    """Whether a sample goes without its image prompt, and whether without its text."""
    at = draw.uniform("dropout")
    image, text = settings.drop_image, settings.drop_image + settings.drop_text
    if at < image:
        return True, False
    return text <= at < text + settings.drop_both, image <= at < text + settings.drop_both


def rate_at(step: int, settings: Settings) -> float:
    """The learning rate of a step counted from 0.

    As diffusers' get_scheduler, but a function of the step, so that a resume has nothing to restore, and with a warm-up
    that does not waste the first step on a rate of 0.
    """
    if step < settings.warmup:
        return settings.rate * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.rate
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def loss_of(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error in float32, each sample's times its weight (n,)."""
    if weights is None:
        return functional.mse_loss(prediction.float(), target.float())
    errors = (prediction.float() - target.float()).square().flatten(1).mean(1)
    return (errors * weights.to(errors)).mean()
