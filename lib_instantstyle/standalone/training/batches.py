"""From draws to what the UNet eats, with dropped prompts and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .draws import Draw
from .examples import ExampleSource
from .prediction import ModelInput
from .recipe import NoiseSchedule, dropped, latents_of, noise_of
from .settings import Settings


@dataclass(frozen=True, eq=False)
class Batches:
    """Makes the batch of a training pass."""

    source: ExampleSource
    schedule: NoiseSchedule
    scaling: float  # of the VAE's latents
    no_picture: Tensor  # (width,) or (patches + 1, width): the feature of a dropped image prompt
    settings: Settings
    device: torch.device
    dtype: torch.dtype  # of the UNet

    def make(self, draws: Sequence[Draw]) -> tuple[ModelInput, Tensor]:
        """The input for these samples, and what the UNet is to predict from it."""
        examples = self.source.take(draws)
        drops = [dropped(draw, self.settings) for draw in draws]
        captions = ["" if text else caption for (_, text), caption in zip(drops, examples.captions)]
        context, pooled = self.source.contexts(captions)
        pairs = zip(drops, examples.features)
        features = torch.stack([self.no_picture if image else feature for (image, _), feature in pairs])
        latents = latents_of(examples.moments, draws, self.scaling)
        noise = noise_of(draws, latents.shape[1:], self.settings.noise_offset)
        timesteps = torch.tensor([draw.below("timestep", len(self.schedule.alphas)) for draw in draws])
        noisy = self.schedule.noisy(latents, noise, timesteps)
        target = self.schedule.target(latents, noise, timesteps)
        given = (noisy, timesteps, context, pooled, examples.time_ids, features)
        return ModelInput(*(self._placed(tensor) for tensor in given)), target.to(self.device)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)
