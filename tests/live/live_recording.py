"""What the WebUI samples, kept as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from live_kind import called_for_a_prediction
from torch import Tensor


@dataclass
class Pass:
    """One sampling pass: what the UNet answered to each call, and the latents at the end."""

    predictions: list[Tensor] = field(default_factory=list)
    latents: Tensor | None = None  # none when sampling failed

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.predictions, *([] if self.latents is None else [self.latents])]

    def same_as(self, other: Pass) -> bool:
        """Whether both are bit-identical in every prediction and in the latents."""
        return len(self.tensors) == len(other.tensors) and all(map(torch.equal, self.tensors, other.tensors))


@contextmanager
def img2img_is_seeded() -> Iterator[None]:
    """img2img draws from torch's global generator, which others draw from too: ControlNet when it loads a model."""
    from modules.processing import StableDiffusionProcessingImg2Img

    init = StableDiffusionProcessingImg2Img.init

    def init_seeded(self: Any, *args: Any, **kwargs: Any) -> None:
        torch.manual_seed(0)
        init(self, *args, **kwargs)

    with mock.patch.object(StableDiffusionProcessingImg2Img, "init", init_seeded):
        yield


@contextmanager
def recording(passes: list[Pass]) -> Iterator[None]:
    """Every sampling pass from here on is added to `passes`."""
    from modules.sd_samplers_common import Sampler

    called = called_for_a_prediction()
    sample, call = Sampler.launch_sampling, called.forward

    def sample_and_keep(self: Any, *args: Any) -> Tensor:
        passes.append(Pass())
        latents = sample(self, *args)
        passes[-1].latents = latents.detach().clone()
        return latents

    def call_and_keep(self: Any, *args: Any, **kwargs: Any) -> Tensor:
        predicted = call(self, *args, **kwargs)
        passes[-1].predictions.append(predicted.detach().clone())
        return predicted

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Sampler, "launch_sampling", sample_and_keep))
        stack.enter_context(mock.patch.object(called, "forward", call_and_keep))
        yield
