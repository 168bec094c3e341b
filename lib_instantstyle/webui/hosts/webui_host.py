"""What every WebUI answers alike, and what a job asks of its WebUI besides the questions of a style session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modules import cache, devices, sd_samplers_common, shared

from ...files.image_encoders import EncoderInfo
from ...files.installed import ModelFiles
from ...files.text_towers import TextTowerInfo
from ...reference.host import Host
from ...reference.latents import checked_latent, pixels_for
from ...reference.store import EmbedStore, PictureStore
from ...units.errors import IncompatibleModelError
from .folders import adapter_folders, configured_folders, encoder_folders, lora_folders, said

ROW_MARK = "instantstyle_rows"  # our key in what travels with the text: 1 for conditional rows, 0 for the others

NO_LATENTS = "Self-attention cannot look at a reference in this WebUI. Set the method to adapter or lora."

ReadCall = Callable[[Tensor | None, Tensor], None]  # marks of a call, (rows, 1), or None: nothing tells; its latents


class WebUIHost(Host, ABC):
    """Answers from the live WebUI; one for the life of the process."""

    shows_references = False  # whether self-attention can be shown a reference here

    def __init__(self) -> None:
        kept = Path(cache.cache_dir) / "instantstyle"
        self.embed_store = EmbedStore(kept / "embeds")
        self.picture_store = PictureStore(kept / "pictures")
        self.files = ModelFiles(adapter_folders, encoder_folders, configured_folders, said, lora_folders)

    @abstractmethod
    def loaded_unet(self) -> nn.Module | None:
        """The UNet of the checkpoint in memory, or None; unlike `unet`, this never starts loading one."""

    @abstractmethod
    def loaded_text_width(self) -> int | None:
        """The width of the pooled text of the checkpoint in memory, or None; never starts loading one."""

    @abstractmethod
    def text_width(self) -> int | None:
        """As `loaded_text_width`, of the live checkpoint. Raises IncompatibleModelError when there is none."""

    @abstractmethod
    def mark_rows(self, params: Any) -> None:
        """Before a model call (`on_cfg_denoiser`): mark the conditional rows of its batches, and the others."""

    @abstractmethod
    def watch_calls(self, read: ReadCall) -> RemovableHandle:
        """Have each call of the live UNet tell its marks, (rows, 1), or None when its rows cannot be told apart, and
        its latents, (rows, channels, height, width): of a tiled batch there are several rows for each mark."""

    def denoised(self, given: Any, output: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """What a step's output (`on_cfg_after_cfg`) comes to when `change` is made to the denoised latent.

        `given`: what `on_cfg_denoiser` told of the same step.
        """
        return change(output)

    def shows_errors_of(self, p: Any) -> bool:
        """Whether whoever asked for the job `p` sees what it raises."""
        return True

    def why_layers_pass_hooks_by(self) -> str | None:
        """What keeps hooks of the live UNet's layers from being called although it is called itself; None: nothing."""
        return None

    @torch.no_grad()
    def latent_of(self, image: Image.Image, height: int, width: int) -> Tensor:
        """By the WebUI's own function, which draws from torch's random numbers: they go on as if it had not."""
        pixels = pixels_for(image, height, width)
        here = [devices.device] if devices.device.type == "cuda" else []
        with devices.autocast(), torch.random.fork_rng(here):
            torch.manual_seed(0)
            return checked_latent(sd_samplers_common.images_tensor_to_samples(pixels, 0).float())

    def alphas_cumprod(self) -> Tensor:
        raise IncompatibleModelError(NO_LATENTS)

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        half = devices.device.type == "cuda" and not getattr(shared.cmd_opts, "no_half", False)
        return devices.device, torch.float16 if half else torch.float32

    def text_tower(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        pristine = bool(getattr(shared.opts, "instantstyle_pristine_text", False))
        return self.files.text_tower(encoder, self.text_width(), pristine=pristine)


def marks_in(conditions: Mapping[str, Any] | Any) -> Tensor | None:
    """Our marks among what travels with the text, or None."""
    return conditions.get(ROW_MARK) if isinstance(conditions, Mapping) else None
