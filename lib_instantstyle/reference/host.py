"""What a style session asks of the place it runs in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from ..files.image_encoders import EncoderInfo
from ..files.installed import ModelFiles
from ..files.text_towers import TextTowerInfo, Tokenizer
from .store import EmbedStore


class Host(Protocol):
    """A few questions. Answers hold for the sampling pass in progress unless stated otherwise."""

    files: ModelFiles  # the adapters, encoders and text towers there are
    embed_store: EmbedStore  # for the life of the process

    def unet(self) -> nn.Module:
        """The live UNet. Raises IncompatibleModelError when there is none that hooks can reach."""
        ...

    def latent_of(self, image: Image.Image, height: int, width: int) -> Tensor:
        """(1, channels, height, width): an RGB picture as the checkpoint's VAE sees it, fitted to that size, scaled.

        Raises IncompatibleModelError.
        """
        ...

    def alphas_cumprod(self) -> Tensor:
        """(timesteps,) ᾱ of the checkpoint's noise schedule. Raises IncompatibleModelError where it has none."""
        ...

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        """Where image encoders and text towers run, and in which precision."""
        ...

    def room_for_encoder(self) -> AbstractContextManager[None]:
        """Make room on the device for an image encoder or a text tower, and tidy up after it."""
        ...

    def text_tower(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        """The file whose text tower shares the encoder's space; None: the checkpoint's second text encoder does.

        Raises TextTowerNotFoundError naming the file to get.
        """
        ...

    def tokenizer(self) -> Tokenizer | None:
        """CLIP's tokenizer for text towers that have none beside them, or None."""
        ...

    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        """(texts, width) pooled, projected embeddings by the checkpoint's second text encoder, float32, CPU.

        Each text is one phrase, as it stands: no emphasis, no orders. The encoder is as the checkpoint has it, without
        what a job adds to it.
        """
        ...

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        """What tells the checkpoint from others, and textual inversions that the texts name from their namesakes.

        Letters and digits; None: nothing its text encoder says of them is kept.
        """
        ...
