"""Encoded examples, and how pictures become them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .draws import Draw
from .folder import FolderSamples
from .pictures import MIDDLE, RawSample, cut
from .settings import Settings
from .shards import ShardSamples
from .towers import Towers


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

    def __init__(self, towers: Towers, settings: Settings) -> None:
        self._towers, self._settings = towers, settings

    def contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._towers.contexts(captions)

    def _encoded(self, samples: Sequence[RawSample], draws: Sequence[Draw]) -> Examples:
        size = self._settings.size
        assert size is not None
        crops = [cut(sample.image, size, self._place(draw)) for sample, draw in zip(samples, draws)]
        return Examples(
            self._towers.moments(torch.stack([crop.pixels for crop in crops])),
            self._towers.features([sample.image for sample in samples]),
            torch.stack([crop.time_ids for crop in crops]),
            [drawn_caption(sample.captions, draw) for sample, draw in zip(samples, draws)],
        )

    def _place(self, draw: Draw) -> tuple[float, float]:
        return (draw.uniform("top"), draw.uniform("left")) if self._settings.random_crop else MIDDLE


class EncodedFolder(_Encoding):
    """The pictures of a folder, read by several threads."""

    def __init__(self, samples: FolderSamples, towers: Towers, settings: Settings) -> None:
        super().__init__(towers, settings)
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

    def __init__(self, samples: ShardSamples, towers: Towers, settings: Settings) -> None:
        super().__init__(towers, settings)
        self._samples = samples
        self.skipped = samples.skipped

    def take(self, draws: Sequence[Draw]) -> Examples:
        return self._encoded([self._samples.sample() for _ in draws], draws)

    def position(self) -> list[int]:
        return self._samples.position()

    def seek(self, position: Sequence[int]) -> None:
        self._samples.seek(position)
