"""What a style session asks of the place it runs in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from ..core.checkpoint import AdapterInfo
from ..core.clip_vision import EncoderInfo, Feature
from ..core.embed_store import EmbedStore


class Host(Protocol):
    """A few questions. Answers hold for the sampling pass in progress unless stated otherwise."""

    embed_store: EmbedStore  # for the life of the process

    def unet(self) -> nn.Module:
        """The live UNet. Raises IncompatibleModelError when there is none that hooks can reach."""
        ...

    def adapter(self, name: str) -> AdapterInfo:
        """The adapter of that name, or the best one for `auto`. Raises AdapterNotFoundError or CheckpointError."""
        ...

    def encoder(self, feature: Feature) -> EncoderInfo:
        """An installed encoder that gives `feature`. Raises EncoderNotFoundError naming the file to get."""
        ...

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        """Where image encoders run, and in which precision."""
        ...

    def room_for_encoder(self) -> AbstractContextManager[None]:
        """Make room on the device for an image encoder, and tidy up after it."""
        ...

    def content_text_width(self) -> int:
        """Width of the embeddings that `content_text_embeds` gives."""
        ...

    def content_text_embeds(self, text: str) -> Tensor:
        """(1, width) pooled, projected embedding of `text` by the checkpoint's second text encoder, float32, CPU."""
        ...
