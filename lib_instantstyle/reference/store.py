"""What was computed or seen once on this machine: embeddings, and the reference pictures themselves.

Both are kept by content hash, in a folder that may be deleted at any time. Nothing here may stop a job: a full disk
costs the cache entry, a damaged entry is computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files.whole_files import write_whole
from ..units.errors import PictureError
from .pictures import Picture, content_hash, read_kept

MEMORY_ENTRIES = 64
EMBEDS_BYTES = 256 << 20  # of embeddings on disk: 190 pictures of a plus adapter, 50,000 of a base one
PICTURES_BYTES = 1 << 30
KEPT_SHARE = 7 / 8  # of its limit that a folder still holds after tidying, so that not every write has to tidy

log = logging.getLogger("InstantStyle")


class Folder:
    """A folder of a cache that may hold `limit` bytes. It is listed once, and whenever a process has filled it."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self._limit = limit
        self._held: int | None = None  # bytes, as far as this process knows; None: it has not looked yet

    def write(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file in it whole or not at all, and tidy when it is full; a failure is logged and forgotten."""
        try:
            write_whole(path, write, alone=False)
            written = path.stat().st_size
        except (OSError, SafetensorError) as error:
            log.warning("%s could not be kept: %s", path.name, error)
            return
        if self._held is None:
            self._held = prune(self.path, self._limit)
        else:
            self._held += written
        if self._held > self._limit:
            self._held = prune(self.path, int(self._limit * KEPT_SHARE))


def prune(folder: Path, limit: int) -> int:
    """Delete the files used longest ago until the folder holds at most `limit` bytes; how many it holds then."""
    held = seen = 0
    try:
        stats = [(path, path.stat()) for path in folder.iterdir() if path.is_file()]
        for path, stat in sorted(stats, key=lambda one: one[1].st_mtime, reverse=True):
            seen += stat.st_size
            if seen > limit:
                path.unlink(missing_ok=True)
            else:
                held = seen
    except OSError as error:
        log.warning("The cache folder %s could not be tidied: %s", folder, error)
    return held


class EmbedStore:
    """Embeddings by key, the last few in memory, more on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder, EMBEDS_BYTES)
        self._recent: OrderedDict[str, Tensor] = OrderedDict()

    def get(self, key: str) -> Tensor | None:
        """The embedding kept under `key`, or None."""
        if key not in self._recent and (found := self._load(key)) is not None:
            self._remember(key, found)
        if key in self._recent:
            self._recent.move_to_end(key)
        return self._recent.get(key)

    def put(self, key: str, embeds: Tensor) -> None:
        """Keep `embeds` under `key`."""
        self._remember(key, embeds)
        kept, seal = {"embeds": embeds.contiguous()}, {"seal": _seal(key, embeds)}
        self._folder.write(self._path(key), lambda path: save_file(kept, str(path), seal))

    def _remember(self, key: str, embeds: Tensor) -> None:
        self._recent[key] = embeds
        while len(self._recent) > MEMORY_ENTRIES:
            self._recent.popitem(last=False)

    def _load(self, key: str) -> Tensor | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            embeds = _unsealed(key, path)
        except Exception as error:  # a broken file makes its reader raise whatever it likes
            log.warning("The cached embedding %s is damaged; it is computed again (%s).", path.name, error)
            return None
        with suppress(OSError):
            os.utime(path)  # used just now, so pruned last
        return embeds

    def _path(self, key: str) -> Path:
        return self._folder.path / f"{key}.safetensors"


def _seal(key: str, embeds: Tensor) -> str:
    """Changes with every bit of an embedding, its shape and type, and the name that it goes by."""
    told = f"{key} {tuple(embeds.shape)} {embeds.dtype} ".encode()
    return hashlib.sha256(told + embeds.contiguous().numpy().tobytes()).hexdigest()


def _unsealed(key: str, path: Path) -> Tensor:
    """The embedding in a file, as it was put there. Raises ValueError, or what its reader raises, when it is not."""
    if path.stat().st_size > EMBEDS_BYTES:
        raise ValueError("it is far too large")
    with safe_open(str(path), framework="pt", device="cpu") as file:
        embeds = file.get_tensor("embeds").clone()  # what was read is a window into the file, which others may change
        seal = (file.metadata() or {}).get("seal")
    if seal != _seal(key, embeds) or not embeds.isfinite().all():
        raise ValueError("it is not what was kept")
    return embeds


class PictureStore:
    """Reference pictures that were used on this machine, so that an infotext can bring them back."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder, PICTURES_BYTES)

    def put(self, picture: Picture) -> None:
        """Keep a picture, losslessly."""
        path = self._folder.path / f"{picture.hash}.png"
        if path.is_file():
            with suppress(OSError):
                os.utime(path)  # used just now, so pruned last
            return
        self._folder.write(path, lambda target: picture.image.save(target, "PNG", compress_level=1))

    def get(self, picture_hash: str) -> Image.Image | None:
        """The picture of that hash, or None when it was never used here, is gone, or is not the same any more."""
        path = self.path(picture_hash)
        if path is None:
            return None
        with suppress(PictureError):
            found = read_kept(path)
            if content_hash(found) == picture_hash:
                return found
        with suppress(OSError):
            path.unlink()  # damaged; kept anew when it is used next
        return None

    def path(self, picture_hash: str) -> Path | None:
        """The file that keeps the picture of that hash, or None."""
        path = self._folder.path / f"{picture_hash}.png"
        return path if re.fullmatch(r"[0-9a-f]{32}", picture_hash) and path.is_file() else None
