"""AUTOMATIC1111's WebUI: its answers to what a style session asks, and its folders."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modules import cache, devices, lowvram, paths, sd_hijack, sd_hijack_open_clip, sd_models, sd_unet, shared

from ...files.adapters import AdapterInfo
from ...files.image_encoders import EncoderInfo, Feature
from ...files.installed import ModelFiles
from ...files.text_towers import TextTowerInfo, Tokenizer
from ...reference.store import EmbedStore, PictureStore, fingerprint
from ...units.errors import CheckpointError, IncompatibleModelError

DEFAULT_UNITS = 3
CONTROLNET = "*controlnet*"  # its folder under extensions/, whatever the user called it


class A1111Host:
    """Answers from the live WebUI; one for the life of the process."""

    def __init__(self) -> None:
        kept = Path(cache.cache_dir) / "instantstyle"
        self.embed_store = EmbedStore(kept / "embeds")
        self.picture_store = PictureStore(kept / "pictures")
        self.files = ModelFiles(adapter_folders, encoder_folders)

    def unet(self) -> nn.Module:
        if sd_unet.current_unet is not None and sd_unet.get_unet_option() is not None:  # else it goes before sampling
            raise IncompatibleModelError(
                f"The SD Unet {sd_unet.current_unet_option.label} has no layers that can be styled. "
                "Set SD Unet to None in the settings."
            )
        return sd_model().model.diffusion_model

    def adapter(self, name: str) -> AdapterInfo:
        return self.files.adapter(name)

    def encoder(self, feature: Feature) -> EncoderInfo:
        return self.files.encoder(feature)

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        half = devices.device.type == "cuda" and not shared.cmd_opts.no_half
        return devices.device, torch.float16 if half else torch.float32

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

    def text_tower(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        pristine = bool(getattr(shared.opts, "instantstyle_pristine_text", False))
        return self.files.text_tower(encoder, _pooled_width(sd_model()), pristine=pristine)

    def tokenizer(self) -> Tokenizer | None:
        return sd_hijack_open_clip.tokenizer.encode  # open_clip's own, with the vocabulary of every CLIP

    @torch.no_grad()
    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        width = _pooled_width(sd_model())
        with devices.autocast(), _without_networks():
            conditioning = sd_model().get_learned_conditioning([_literally(text) for text in texts])
        return conditioning["vector"][:, :width].float().cpu()  # the pooled text stands first, sizes and crops follow

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        try:
            return fingerprint(Path(sd_model().sd_checkpoint_info.filename)) + _textual_inversions(texts)
        except CheckpointError:  # the file is gone, its model is still in memory
            return None


def sd_model() -> Any:
    """The loaded checkpoint. Raises IncompatibleModelError when there is none."""
    if shared.sd_model is None or not hasattr(shared.sd_model, "model"):
        raise IncompatibleModelError("No checkpoint is loaded. Choose an SDXL checkpoint.")
    return shared.sd_model


def loaded_unet() -> nn.Module | None:
    """The UNet of the checkpoint in memory, or None; unlike asking `shared`, this never starts loading one."""
    model = sd_models.model_data.sd_model
    return getattr(getattr(model, "model", None), "diffusion_model", None)


def loaded_text_width() -> int | None:
    """The width of the pooled text of the checkpoint in memory, or None; never starts loading one."""
    return _pooled_width(sd_models.model_data.sd_model)


def _pooled_width(model: Any) -> int | None:
    """Width of the pooled text of the checkpoint's second text encoder, or None when it has no such encoder."""
    for embedder in getattr(getattr(model, "conditioner", None), "embedders", ()):
        tower = getattr(getattr(embedder, "wrapped", embedder), "model", None)
        if isinstance(projection := getattr(tower, "text_projection", None), Tensor):
            return projection.shape[1]
    return None


def _textual_inversions(texts: Sequence[str]) -> str:
    """A hash of the vectors that the WebUI puts in the place of words in the texts; "" when it does not."""
    spoken, found = "\n".join(texts).lower(), hashlib.sha256()
    known = sorted(sd_hijack.model_hijack.embedding_db.word_embeddings.items())
    named = [(name, one.vec) for name, one in known if name.lower() in spoken]
    for name, vectors in named:
        found.update(name.encode())
        for tensor in vectors.values() if isinstance(vectors, dict) else [vectors]:  # SDXL's: for each text encoder
            found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16] if named else ""


def _literally(text: str) -> str:
    """Keep the WebUI from reading brackets as emphasis and BREAK as an order: the text is one phrase, as it stands."""
    if shared.opts.emphasis == "None":
        return text
    as_read = text.lower()  # by CLIP, which knows no capitals
    return "".join(f"\\{letter}" if letter in "()[]\\" else letter for letter in as_read)


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


def unit_count() -> int:
    """How many units the panel shows and a payload may hold."""
    return max(1, int(getattr(shared.opts, "instantstyle_units", DEFAULT_UNITS)))


def adapter_folders() -> list[Path]:
    """Where adapters are looked for, downloads going to the first."""
    models = Path(paths.models_path)
    own = [models / name for name in ("ControlNet", "ipadapter", "ip-adapter")]
    neighbours = sorted(Path(paths.extensions_dir).glob(f"{CONTROLNET}/models"))
    return [*own, *neighbours, *_configured("instantstyle_adapter_dirs")]


def encoder_folders() -> list[Path]:
    """Where image encoders are looked for, downloads going to the first."""
    neighbours = sorted(Path(paths.extensions_dir).glob(f"{CONTROLNET}/annotator/downloads/clip_vision"))
    return [Path(paths.models_path) / "clip_vision", *neighbours, *_configured("instantstyle_encoder_dirs")]


def _configured(option: str) -> list[Path]:
    """Folders from a setting (one a line) and from --instantstyle-dir."""
    lines = str(getattr(shared.opts, option, "") or "").splitlines()
    lines += getattr(shared.cmd_opts, "instantstyle_dir", None) or []
    return [Path(line.strip()).expanduser() for line in lines if line.strip()]
