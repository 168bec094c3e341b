"""The published files a user may need: where each comes from, where it goes, and the hash it must have."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Literal

from ..units.errors import InstantStyleError

HUB = "https://huggingface.co"
_H94 = f"{HUB}/h94/IP-Adapter/resolve/018e402774aeeddd60609b4ecdb7e298259dc729"
_CHUNK = 1 << 20  # bytes
TRIES = 5  # connections for one file

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

    What has arrived of it is kept beside it, and the next call asks for the rest only. Raises DownloadError when it
    cannot be had, is not the published file, or is being downloaded already.
    """
    target = folder / download.file_name
    partial = folder / f"{download.file_name}.{download.sha256[:8]}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(download, partial)
        with _claimed(download, partial) as file:
            _check_room(download, folder, _size(file))
            _complete(download, file, progress)
            sha256 = _sha256(file)
        if sha256 != download.sha256:
            partial.unlink()
        _check_hash(download, sha256)
        os.replace(partial, target)
    except (OSError, HTTPException) as error:
        raise DownloadError(_failure(download, partial, error)) from error
    return target


def _sweep(download: Download, partial: Path) -> None:
    """Delete what killed downloads of this file left under other names."""
    for old in partial.parent.glob(f"{download.file_name}.*.part"):
        if old != partial and re.fullmatch(r"[0-9a-f]{8}", old.name[len(download.file_name) + 1 : -len(".part")]):
            with suppress(OSError):
                old.unlink()


@contextmanager
def _claimed(download: Download, partial: Path) -> Iterator[BinaryIO]:
    """The file that the download goes to, ours alone; an empty one is not left behind."""
    file = partial.open("a+b")
    if not _locked(file):
        file.close()
        raise DownloadError(f"{download.file_name} is already being downloaded. Wait until it has finished.")
    try:
        yield file
    finally:
        empty = not _size(file)
        file.close()
        if empty:
            partial.unlink()


def _locked(file: BinaryIO) -> bool:
    """Lock an open file until it is closed, or its process ends; False when somebody else has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 40)  # far behind every byte that is written
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # some network drives have no locks
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _complete(download: Download, file: BinaryIO, progress: Progress) -> None:
    """Fetch what is missing. A connection that breaks is made again as long as each brings something."""
    for tries_left in reversed(range(TRIES)):
        before = _size(file)
        try:
            _append(download, file, progress)
        except (OSError, HTTPException) as error:
            shorter = getattr(error, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            if shorter:  # what is there is not the beginning of theirs
                file.truncate(0)
            if shorter or not tries_left or _size(file) == before:
                raise
        if _size(file) >= download.size:
            return
    raise HTTPException("the connection was closed too early")


def _append(download: Download, file: BinaryIO, progress: Progress) -> None:
    """The rest of the file, or all of it from a server that does not send parts; nothing behind its end is read."""
    have = _size(file)
    if have >= download.size:
        return
    with urllib.request.urlopen(_request(download, have), timeout=60) as answer:
        if have and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {have}-"):
            file.truncate(0)
            have = 0
        while have < download.size and (chunk := answer.read(min(_CHUNK, download.size - have))):
            file.write(chunk)
            have += len(chunk)
            progress(have / download.size, f"{download.file_name}: {have / 1e9:.2f} GB")


def _request(download: Download, start: int) -> urllib.request.Request:
    """From the mirror that HF_ENDPOINT names, as huggingface_hub does; proxies are urllib's business."""
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
    headers = {"User-Agent": "sd-webui-instantstyle", **({"Range": f"bytes={start}-"} if start else {})}
    return urllib.request.Request(download.url.replace(HUB, mirror, 1), headers=headers)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _check_room(download: Download, folder: Path, have: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < download.size - have:
        raise DownloadError(
            f"{download.file_name} needs {download.gigabytes}, but only {free / 1e9:.1f} GB are free in {folder}."
        )


def _check_hash(download: Download, sha256: str) -> None:
    if sha256 != download.sha256:
        raise DownloadError(
            f"What arrived as {download.file_name} is not the published file: its SHA-256 is {sha256[:12]}…, "
            f"it should be {download.sha256[:12]}…. Try again."
        )


def _failure(download: Download, partial: Path, error: Exception) -> str:
    why = f"{download.file_name} could not be downloaded from {download.url}: {error}."
    try:
        have = partial.stat().st_size
    except OSError:
        return why
    return f"{why} {have / 1e9:.1f} of {download.gigabytes} have been kept; start the download again to get the rest."
