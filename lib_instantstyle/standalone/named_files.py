"""Adapter, LoRA and encoder files as they are named on a command line: single files, or folders to look through."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..files.adapters import inspect_adapter
from ..files.downloads import DOWNLOADS
from ..files.image_encoders import EncoderInfo, Feature, inspect_encoder
from ..files.installed import ModelFiles, encoder_download
from ..files.loras import inspect_lora
from ..units.errors import AdapterNotFoundError, CheckpointError, EncoderNotFoundError


def default_cache() -> Path:
    """Where image embeddings are kept between runs; may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "instantstyle"


class NamedFiles(ModelFiles):
    """The files and folders somebody named. A file is inspected at once, a folder when it is asked."""

    def __init__(self, adapters: Sequence[Path | str], encoders: Sequence[Path | str]) -> None:
        """LoRAs lie among the adapters, and are told from them by what is in them.

        Raises AdapterNotFoundError, EncoderNotFoundError or CheckpointError for what cannot be used."""
        adapter_paths = [Path(path).expanduser() for path in adapters]
        encoder_paths = [Path(path).expanduser() for path in encoders]
        super().__init__(lambda: adapter_paths, lambda: encoder_paths, lora_folders=lambda: adapter_paths)
        self.loras.way_out = "Name its file or its folder, and use its name without the extension."
        for path in adapter_paths:
            if not path.exists():
                raise AdapterNotFoundError(f"There is no file or folder {path}. Check the adapter's path.", "adapter")
            if path.is_file():
                _check_style_file(path)
        for path in encoder_paths:
            if not path.exists():
                raise EncoderNotFoundError(f"There is no file or folder {path}. Check the encoder's path.", "adapter")
            if path.is_file():
                inspect_encoder(path)

    def all_encoders(self) -> list[EncoderInfo]:
        """Every encoder there is, whatever adapter it is for. Raises EncoderNotFoundError when there is none."""
        found = self.encoders.usable()
        if not found:
            why = "".join(f" {error}" for error in self.encoders.unusable())
            raise EncoderNotFoundError(
                f"A CLIP image encoder is needed, but there is none in {_listed(self.encoder_folders())}.{why} "
                "Name its file or folder with --encoder.",
                "adapter",
            )
        return found

    def adapter_advice(self) -> str:
        download = DOWNLOADS["ip-adapter_sdxl.safetensors"]
        return (
            f"An IP-Adapter for SDXL is needed, but there is none in {_listed(self.adapter_folders())}. "
            f"Get {download.url} ({download.gigabytes}) and name it with --adapter."
        )

    def encoder_advice(self, feature: Feature) -> str:
        download = encoder_download(feature)
        way_out = f"Get {download.url} ({download.gigabytes})" if download else f"Get {feature.encoder_name}"
        return (
            f"The adapter needs {feature.encoder_name} ({feature.kind}, {feature.width} wide); there is no such "
            f"encoder in {_listed(self.encoder_folders())}. {way_out} and name it with --encoder."
        )


def _check_style_file(path: Path) -> None:
    """Raise CheckpointError for a file that is neither an adapter nor a LoRA."""
    try:
        inspect_adapter(path)
    except CheckpointError as error:
        try:
            inspect_lora(path)
        except CheckpointError:
            raise error from None


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "what was given (nothing)"
