"""AUTOMATIC1111's WebUI: its answers to what a style session and a job ask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modules import devices, lowvram, sd_hijack, sd_hijack_open_clip, sd_models, sd_unet, shared

from ...files.text_towers import Tokenizer
from ...reference.names import fingerprint
from ...units.errors import CheckpointError, IncompatibleModelError
from .texts import inversions_in, literally, unnoted
from .webui_host import ROW_MARK, ReadCall, WebUIHost, marks_in


class A1111Host(WebUIHost):
    """Rows are marked by a key of ours in the conditioning, which `sd_model.model` is called with."""

    shows_references = True

    def unet(self) -> nn.Module:
        if sd_unet.current_unet is not None and sd_unet.get_unet_option() is not None:  # else it goes before sampling
            raise IncompatibleModelError(
                f"The SD Unet {sd_unet.current_unet_option.label} has no layers that can be styled. "
                "Set SD Unet to None in the settings."
            )
        return sd_model().model.diffusion_model

    def loaded_unet(self) -> nn.Module | None:
        return getattr(getattr(sd_models.model_data.sd_model, "model", None), "diffusion_model", None)

    def text_width(self) -> int | None:
        return _pooled_width(sd_model())

    def loaded_text_width(self) -> int | None:
        return _pooled_width(sd_models.model_data.sd_model)

    def mark_rows(self, params: Any) -> None:
        for conditioning, mark in ((params.text_cond, 1.0), (params.text_uncond, 0.0)):
            if isinstance(conditioning, dict):
                conditioning[ROW_MARK] = torch.full((conditioning["crossattn"].shape[0], 1), mark)

    def watch_calls(self, read: ReadCall) -> RemovableHandle:
        def instantstyle_read_rows(module: nn.Module, args: tuple[Any, ...]) -> None:
            if len(args) >= 3:  # a bare call only wakes other hooks, as ControlNet does under --medvram
                read(marks_in(args[2]), args[0])

        return sd_model().model.register_forward_pre_hook(instantstyle_read_rows)

    def denoised(self, given: Any, output: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """DDIM and its kin have noise for output: x = √ᾱ x₀ + √(1 − ᾱ) ε."""
        alphas = getattr(given.denoiser, "alphas", None)
        if alphas is None:
            return change(output)
        x, timesteps = (one[-len(output) :] for one in (given.x, given.sigma))  # the unconditional rows: one a picture
        alpha = alphas[timesteps.long()].view(-1, 1, 1, 1).float()
        before = (x - (1 - alpha).sqrt() * output) / alpha.sqrt()
        after = change(before)
        return output if after is before else ((x - alpha.sqrt() * after) / (1 - alpha).sqrt()).to(output)

    def alphas_cumprod(self) -> Tensor:
        return sd_model().alphas_cumprod

    @contextmanager
    def room_for_encoder(self) -> Iterator[None]:
        shared.state.textinfo = "InstantStyle: reading the reference picture…"
        if lowvram.is_enabled(sd_model()):
            lowvram.send_everything_to_cpu()
        try:
            yield
        finally:
            devices.torch_gc()
            shared.state.textinfo = None

    def tokenizer(self) -> Tokenizer | None:
        return sd_hijack_open_clip.tokenizer.encode  # open_clip's own, with the vocabulary of every CLIP

    @torch.no_grad()
    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        width = _pooled_width(sd_model())
        with devices.autocast(), _without_networks(), unnoted(*_notebooks()):
            conditioning = sd_model().get_learned_conditioning([literally(text) for text in texts])
        return conditioning["vector"][:, :width].float().cpu()  # the pooled text stands first, sizes and crops follow

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        try:
            return fingerprint(Path(sd_model().sd_checkpoint_info.filename)) + inversions_in(
                texts, sd_hijack.model_hijack.embedding_db
            )
        except CheckpointError:  # the file is gone, its model is still in memory
            return None


def sd_model() -> Any:
    """The loaded checkpoint. Raises IncompatibleModelError when there is none."""
    if shared.sd_model is None or not hasattr(shared.sd_model, "model"):
        raise IncompatibleModelError("No checkpoint is loaded. Choose an SDXL checkpoint.")
    return shared.sd_model


def _pooled_width(model: Any) -> int | None:
    """Width of the pooled text of the checkpoint's second text encoder, or None when it has no such encoder."""
    for embedder in getattr(getattr(model, "conditioner", None), "embedders", ()):
        tower = getattr(getattr(embedder, "wrapped", embedder), "model", None)
        if isinstance(projection := getattr(tower, "text_projection", None), Tensor):
            return projection.shape[1]
    return None


def _notebooks() -> list[tuple[Any, str]]:
    return [(sd_hijack.model_hijack, name) for name in ("extra_generation_params", "comments")]


@contextmanager
def _without_networks() -> Iterator[None]:
    """Keep LoRAs, also those of the job before, out of the text encoder.

    The WebUI's own Lora extension has each layer look at this list when it runs, and change its weights accordingly.
    """
    loaded = getattr(sys.modules.get("networks"), "loaded_networks", [])
    kept = list(loaded)
    loaded.clear()
    try:
        yield
    finally:
        loaded[:] = kept
