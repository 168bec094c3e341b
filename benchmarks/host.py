"""Where a session runs while it is measured: a UNet, and a folder of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from lib_instantstyle.files.image_encoders import EncoderInfo
from lib_instantstyle.files.text_towers import TextTowerInfo, Tokenizer
from lib_instantstyle.standalone.analysis_host import FilesHost
from lib_instantstyle.units.errors import IncompatibleModelError


class BenchHost(FilesHost):
    """Implements reference.host.Host. Encoders run on the CPU; no unit that is measured removes content by words."""

    def __init__(self, unet: nn.Module, folder: Path, cache: Path) -> None:
        super().__init__([folder / "adapters"], [folder / "encoders"], cache)
        self._unet = unet

    def unet(self) -> nn.Module:
        return self._unet

    def latent_of(self, image: Image.Image, height: int, width: int) -> Tensor:
        """Of random numbers: what is in it costs nothing."""
        return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(0))

    def alphas_cumprod(self) -> Tensor:
        return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        return torch.device("cpu"), torch.float32

    def text_tower(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        return None

    def tokenizer(self) -> Tokenizer | None:
        return None

    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        raise IncompatibleModelError("A benchmark has no text encoder. Leave the content prompt empty.")

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        return None
