"""Adapter and encoder files as they are named on a command line: single files, or folders to look through."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..files.adapters import AdapterInfo, inspect_adapter
from ..files.downloads import DOWNLOADS
from ..files.image_encoders import EncoderInfo, Feature, inspect_encoder
from ..files.installed import ModelFiles, encoder_download
from ..files.text_towers import TextTowerInfo
from ..units.errors import AdapterNotFoundError, EncoderNotFoundError
from ..units.groups import AUTO_ADAPTER


def default_cache() -> Path:
    """Where image embeddings are kept between runs; may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "instantstyle"


class NamedFiles:
    """The files and folders somebody named. A file is inspected at once, a folder when it is asked."""

    def __init__(self, adapters: Sequence[Path | str], encoders: Sequence[Path | str]) -> None:
        """Raises AdapterNotFoundError, EncoderNotFoundError or CheckpointError for what cannot be used."""
        self.adapters = [Path(path).expanduser() for path in adapters]
        self.encoders = [Path(path).expanduser() for path in encoders]
        for path in self.adapters:
            if not path.exists():
                raise AdapterNotFoundError(f"There is no file or folder {path}. Check the adapter's path.", "adapter")
            if path.is_file():
                inspect_adapter(path)
        for path in self.encoders:
            if not path.exists():
                raise EncoderNotFoundError(f"There is no file or folder {path}. Check the encoder's path.", "adapter")
            if path.is_file():
                inspect_encoder(path)
        self._files = ModelFiles(lambda: self.adapters, lambda: self.encoders)

    def adapter(self, name: str) -> AdapterInfo:
        if name == AUTO_ADAPTER and not self._files.adapters.usable():
            raise AdapterNotFoundError(self._no_adapter(), "adapter")
        return self._files.adapter(name)

    def encoder(self, feature: Feature) -> EncoderInfo:
        try:
            return self._files.encoder(feature)
        except EncoderNotFoundError:
            raise EncoderNotFoundError(self._no_encoder(feature), "adapter") from None

    def all_encoders(self) -> list[EncoderInfo]:
        """Every encoder there is, whatever adapter it is for. Raises EncoderNotFoundError when there is none."""
        found = self._files.encoders.usable()
        if not found:
            why = "".join(f" {error}" for error in self._files.encoders.unusable())
            raise EncoderNotFoundError(
                f"A CLIP image encoder is needed; there is none in {_listed(self.encoders)}.{why} "
                "Name its file or folder with --encoder.",
                "adapter",
            )
        return found

    def tower_for(self, encoder: EncoderInfo, own_width: int | None) -> TextTowerInfo | None:
        """The text tower of the encoder's space, or None: the model's own, `own_width` wide, is it."""
        return self._files.text_tower(encoder, own_width)

    def _no_adapter(self) -> str:
        download = DOWNLOADS["ip-adapter_sdxl.safetensors"]
        why = "".join(f" {error}" for error in self._files.adapters.unusable())
        return (
            f"An IP-Adapter for SDXL is needed; there is none in {_listed(self.adapters)}.{why} "
            f"Get {download.url} ({download.gigabytes}) and name it with --adapter."
        )

    def _no_encoder(self, feature: Feature) -> str:
        download = encoder_download(feature)
        way_out = f"Get {download.url} ({download.gigabytes})" if download else f"Get {feature.encoder_name}"
        return (
            f"The adapter reads {feature.encoder_name}, {feature.kind} and {feature.width} wide; there is no such "
            f"encoder in {_listed(self.encoders)}. {way_out} and name it with --encoder."
        )


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "what was given (nothing)"
