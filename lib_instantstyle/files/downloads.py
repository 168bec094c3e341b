"""The published files a user may need: where each comes from, where it goes, and the hash it must have."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal

from ..units.errors import InstantStyleError

_H94 = "https://huggingface.co/h94/IP-Adapter/resolve/018e402774aeeddd60609b4ecdb7e298259dc729"
_CHUNK = 1 << 20  # bytes

Progress = Callable[[float, str], object]  # share done 0..1, what is happening


class DownloadError(InstantStyleError):
    """A download did not arrive whole."""

    status_code = 502


@dataclass(frozen=True)
class Download:
    """One published file."""

    file_name: str  # under which it is saved
    kind: Literal["adapter", "encoder"]
    url: str
    size: int  # bytes
    sha256: str
    gives: tuple[tuple[str, int], ...] = ()  # of an encoder: kinds and widths of its features

    @property
    def gigabytes(self) -> str:
        return f"{self.size / 1e9:.1f} GB"


DOWNLOADS = {
    download.file_name: download
    for download in (
        Download(
            "ip-adapter_sdxl.safetensors",
            "adapter",
            f"{_H94}/sdxl_models/ip-adapter_sdxl.safetensors",
            702_585_376,
            "ba1002529e783604c5f326d49f0122025392d1d20ac8d573b3eeb3e6dea4ebb6",
        ),
        Download(
            "ip-adapter_sdxl_vit-h.safetensors",
            "adapter",
            f"{_H94}/sdxl_models/ip-adapter_sdxl_vit-h.safetensors",
            698_391_064,
            "ebf05d918348aec7abb02a5e9ecef77e0aaea6914a5c4ea13f50d45eb1681831",
        ),
        Download(
            "ip-adapter-plus_sdxl_vit-h.safetensors",
            "adapter",
            f"{_H94}/sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors",
            847_517_512,
            "3f5062b8400c94b7159665b21ba5c62acdcd7682262743d7f2aefedef00e6581",
        ),
        Download(
            "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
            "encoder",
            f"{_H94}/sdxl_models/image_encoder/model.safetensors",
            3_689_912_664,
            "657723e09f46a7c3957df651601029f66b1748afb12b419816330f16ed45d64d",
            gives=(("pooled", 1280), ("hidden", 1664)),
        ),
        Download(
            "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
            "encoder",
            f"{_H94}/models/image_encoder/model.safetensors",
            2_528_373_448,
            "6ca9667da1ca9e0b0f75e46bb030f7e011f44f86cbfb8d5a36590fcd7507b030",
            gives=(("pooled", 1024), ("hidden", 1280)),
        ),
    )
}


def fetch(download: Download, folder: Path, progress: Progress) -> Path:
    """Download one file into `folder`; only a file with the right hash gets its name.

    Raises DownloadError, leaving nothing behind, when it cannot be had or is not the published file.
    """
    target = folder / download.file_name
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")  # its own: two may be at it at once
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(download, folder)
        _check_hash(download, _receive(download, partial, progress))
        os.replace(partial, target)
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{download.file_name} could not be downloaded from {download.url}: {error}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return target


def _check_room(download: Download, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < download.size:
        raise DownloadError(
            f"{download.file_name} takes {download.gigabytes}, but only {free / 1e9:.1f} GB are free in {folder}."
        )


def _receive(download: Download, partial: Path, progress: Progress) -> str:
    """Stream the file to `partial`; the SHA-256 of what arrived."""
    digest, received = hashlib.sha256(), 0
    with urllib.request.urlopen(download.url, timeout=60) as answer, partial.open("wb") as file:
        while received <= download.size and (chunk := answer.read(_CHUNK)):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            progress(min(received / download.size, 1.0), f"{download.file_name}: {received / 1e9:.2f} GB")
    return digest.hexdigest()


def _check_hash(download: Download, sha256: str) -> None:
    if sha256 != download.sha256:
        raise DownloadError(
            f"{download.file_name} did not arrive as published: its SHA-256 is {sha256[:12]}…, "
            f"it should be {download.sha256[:12]}…. Try again."
        )
