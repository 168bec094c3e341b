"""A host without a WebUI: a UNet, a folder of models, and a text encoder made of random directions."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from lib_instantstyle.files.image_encoders import EncoderInfo
from lib_instantstyle.files.installed import ModelFiles
from lib_instantstyle.files.text_towers import TextTowerInfo, Tokenizer
from lib_instantstyle.reference.latents import pixels_for
from lib_instantstyle.reference.store import EmbedStore

from .clip import POOLED


class TinyHost:
    """Implements hosts.protocol.Host on the CPU; counts what costs time."""

    def __init__(self, unet: nn.Module, models: Path, cache: Path, text_width: int | None = POOLED) -> None:
        self.live_unet, self.models, self.cache = unet, models, cache
        self.embed_store = EmbedStore(cache)
        self.encoder_loads = self.text_encodings = self.latents = 0
        self._text_width = text_width
        self.pristine_text = False
        self.checkpoint: str | None = "tiny"
        self.files = ModelFiles(lambda: [models / "adapters"], lambda: [models / "encoders"])

    def unet(self) -> nn.Module:
        return self.live_unet

    def latent_of(self, image: Image.Image, height: int, width: int) -> Tensor:
        """Four random mixtures of a picture's pixels, at an eighth of its size."""
        self.latents += 1
        mixture = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
        return torch.einsum("oc,bchw->bohw", mixture, avg_pool2d(pixels_for(image, height, width), 8) * 2 - 1)

    def alphas_cumprod(self) -> Tensor:
        return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        return torch.device("cpu"), torch.float32

    @contextmanager
    def room_for_encoder(self) -> Iterator[None]:
        self.encoder_loads += 1
        yield

    def text_tower(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        return self.files.text_tower(encoder, self._text_width, pristine=self.pristine_text)

    def tokenizer(self) -> Tokenizer | None:
        return lambda text: [ord(letter) % 97 for letter in text]

    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        self.text_encodings += 1
        return torch.cat([self.text_embeds(text) for text in texts])

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        return self.checkpoint

    def text_embeds(self, text: str) -> Tensor:
        """(1, width) what the checkpoint's text encoder says."""
        made = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return torch.randn(1, self._text_width or 0, generator=made)
