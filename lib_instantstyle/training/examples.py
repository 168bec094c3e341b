"""Encoded examples, and where they come from: encoded as they come, or once and for all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .draws import Draw
from .pictures import MIDDLE, RawSample, cut
from .settings import Settings
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
        """Where this process stands in the data, as far as the draws do not say it."""
        ...

    def seek(self, position: Sequence[int]) -> None:
        """Go on from there."""
        ...


class SampleStream(Protocol):
    """Where pictures with captions come from. Samples are asked for in order."""

    skipped: dict[str, str]

    def sample(self, number: int) -> RawSample: ...


def drawn_caption(captions: Sequence[str], draw: Draw) -> str:
    return captions[draw.below("caption", len(captions))]


def encode(towers: Towers, samples: Sequence[RawSample], draws: Sequence[Draw], settings: Settings) -> Examples:
    """Pictures through the VAE and the image encoder, all at once."""
    size = settings.size
    assert size is not None
    places = [_place(draw, settings) for draw in draws]
    crops = [cut(sample.image, size, place) for sample, place in zip(samples, places)]
    return Examples(
        towers.moments(torch.stack([crop.pixels for crop in crops])),
        towers.features([sample.image for sample in samples]),
        torch.stack([crop.time_ids for crop in crops]),
        [drawn_caption(sample.captions, draw) for sample, draw in zip(samples, draws)],
    )


def _place(draw: Draw, settings: Settings) -> tuple[float, float]:
    return (draw.uniform("top"), draw.uniform("left")) if settings.random_crop else MIDDLE


class EncodedSamples:
    """Pictures with captions, read by several threads and encoded as they come."""

    def __init__(self, stream: SampleStream, towers: Towers, settings: Settings) -> None:
        self._stream, self._towers, self._settings = stream, towers, settings
        self._pool = ThreadPoolExecutor(settings.workers)
        self.skipped = stream.skipped

    def take(self, draws: Sequence[Draw]) -> Examples:
        samples = list(self._pool.map(self._stream.sample, [draw.number for draw in draws]))
        return encode(self._towers, samples, draws, self._settings)

    def contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._towers.contexts(captions)

    def position(self) -> list[int]:
        return []

    def seek(self, position: Sequence[int]) -> None:
        pass
