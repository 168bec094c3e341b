"""Encoded examples, how pictures become them, and what the UNet eats of them, with dropped prompts and noise."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .crops import MIDDLE, RawSample, cut
from .curve import Bar
from .draws import Draw
from .folder import FolderSamples
from .frozen_encoders import FrozenEncoders
from .prediction import ModelInput
from .recipe import dropped, latents_of, noise_of, target_of
from .settings import Settings
from .shards import ShardSamples


@dataclass(frozen=True, eq=False)
class Examples:
    """Some samples, encoded; the captions still are text, because one may be dropped."""

    moments: Tensor  # (n, 2, c, h, w): mean and deviation of the VAE's posterior
    features: Tensor  # (n, width) or (n, patches + 1, width)
    time_ids: Tensor  # (n, 6)
    captions: list[str]  # one drawn for each


class ExampleSource(Protocol):
    """Where encoded examples come from."""

    skipped: dict[str, str]  # what could not be read → why

    def fill(self, bar: Bar, share: int = 0, of: int = 1) -> None:
        """Encode what is encoded once; a share of it, where several processes work at the same files."""
        ...

    def finish(self) -> None:
        """Look at what was filled. Raises InstantStyleError when no picture could be read."""
        ...

    def take(self, draws: Sequence[Draw]) -> Examples:
        """The examples for these draws."""
        ...

    def contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(n, tokens, cross_attention_dim) and (n, width) of captions that were taken, or of the empty one."""
        ...

    def position(self) -> list[int]:
        """Where this process stands in the data, as far as the draws do not say it; empty when they say all."""
        ...

    def seek(self, position: Sequence[int]) -> None:
        """Go on from there."""
        ...


def drawn_caption(captions: Sequence[str], draw: Draw) -> str:
    return captions[draw.below("caption", len(captions))]


class _Encoding:
    """Encodes pictures as they come."""

    def __init__(self, encoders: FrozenEncoders, settings: Settings) -> None:
        self._encoders, self._settings = encoders, settings

    def fill(self, bar: Bar, share: int = 0, of: int = 1) -> None:
        """Nothing is encoded before it is wanted."""

    def finish(self) -> None:
        """Nothing was filled."""

    def contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._encoders.contexts(captions)

    def _encoded(self, samples: Sequence[RawSample], draws: Sequence[Draw]) -> Examples:
        size = self._settings.size
        assert size is not None
        crops = [cut(sample.image, size, self._place(draw)) for sample, draw in zip(samples, draws)]
        return Examples(
            self._encoders.moments(torch.stack([crop.pixels for crop in crops])),
            self._encoders.features([sample.image for sample in samples]),
            torch.stack([crop.time_ids for crop in crops]),
            [drawn_caption(sample.captions, draw) for sample, draw in zip(samples, draws)],
        )

    def _place(self, draw: Draw) -> tuple[float, float]:
        return (draw.uniform("top"), draw.uniform("left")) if self._settings.random_crop else MIDDLE


class EncodedFolder(_Encoding):
    """The pictures of a folder, read by several threads."""

    def __init__(self, samples: FolderSamples, encoders: FrozenEncoders, settings: Settings) -> None:
        super().__init__(encoders, settings)
        self._samples, self._pool = samples, ThreadPoolExecutor(settings.workers)
        self.skipped = samples.skipped

    def take(self, draws: Sequence[Draw]) -> Examples:
        return self._encoded(list(self._pool.map(self._samples.sample, [draw.number for draw in draws])), draws)

    def position(self) -> list[int]:
        return []

    def seek(self, position: Sequence[int]) -> None:
        """The draws say all."""


class EncodedShards(_Encoding):
    """The pictures of shards, in the order in which they come."""

    def __init__(self, samples: ShardSamples, encoders: FrozenEncoders, settings: Settings) -> None:
        super().__init__(encoders, settings)
        self._samples = samples
        self.skipped = samples.skipped

    def take(self, draws: Sequence[Draw]) -> Examples:
        return self._encoded([self._samples.sample() for _ in draws], draws)

    def position(self) -> list[int]:
        return self._samples.position()

    def seek(self, position: Sequence[int]) -> None:
        self._samples.seek(position)


@dataclass(frozen=True, eq=False)
class Batches:
    """Makes the batch of a training pass."""

    source: ExampleSource
    schedule: Any  # a DDPMScheduler
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
        timesteps = torch.tensor([draw.below("timestep", self.schedule.config.num_train_timesteps) for draw in draws])
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        target = target_of(self.schedule, latents, noise, timesteps)
        given = (noisy, timesteps, context, pooled, examples.time_ids, features)
        return ModelInput(*(self._placed(tensor) for tensor in given)), target.to(self.device)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)
