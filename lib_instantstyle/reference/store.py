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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files.image_encoders import EncoderInfo, Feature
from ..files.tensor_files import whole_of
from ..files.text_towers import TextTowerInfo
from ..files.whole_files import write_whole
from ..units.errors import CheckpointError, PictureError
from .pictures import Picture, read_kept

MEMORY_ENTRIES = 64
EMBEDS_BYTES = 256 << 20  # of embeddings on disk: 190 pictures of a plus adapter, 50,000 of a base one
PICTURES_BYTES = 1 << 30
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json")  # beside a text tower: they decide what it reads
_EDGE = 1 << 20  # bytes hashed at either end of an encoder file
_SAMPLES, _SAMPLE = 32, 1 << 12  # places in between, and bytes hashed at each

log = logging.getLogger("InstantStyle")


def fingerprint(path: Path, *, lasting: bool = True) -> str:
    """A short hash that changes when a big file does: its size, its time, its first and last megabyte, and samples.

    Not `lasting`, it changes whenever anybody has touched the file, which is no reason to forget what is kept on disk.
    Raises CheckpointError when the file is gone.
    """
    return _digest(path, _lasting_stamp if lasting else _passing_stamp)


def _lasting_stamp(stat: os.stat_result) -> str:
    return f":{stat.st_mtime_ns}"


def _passing_stamp(stat: os.stat_result) -> str:
    return f":{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"


def sampled_content(path: Path) -> str:
    """The same for every copy of a file: a short hash of what `fingerprint` looks at, but its time.

    Raises CheckpointError when the file is gone.
    """
    return _digest(path, lambda _: "")


def _digest(path: Path, stamp: Callable[[os.stat_result], str]) -> str:
    digest = hashlib.sha256()
    try:
        for part in whole_of(path):
            _digest_file(digest, part, stamp)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read any more ({error.strerror}). Refresh the list.") from None
    return digest.hexdigest()[:16]


def _digest_file(digest: Any, path: Path, stamp: Callable[[os.stat_result], str]) -> None:
    stat = path.stat()
    digest.update(f"{stat.st_size}{stamp(stat)}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE))
        for place in range(1, _SAMPLES + 1):
            file.seek(stat.st_size * place // (_SAMPLES + 1))
            digest.update(file.read(_SAMPLE))
        file.seek(max(stat.st_size - _EDGE, 0))
        digest.update(file.read(_EDGE))


def embeds_key(picture_hash: str, encoder: EncoderInfo, feature: Feature) -> str:
    """Names an embedding by what it was made of."""
    return f"{picture_hash}-{encoder_name(encoder)}-{feature.kind}"


def encoder_name(encoder: EncoderInfo) -> str:
    """Changes with an encoder's file and with the config beside it."""
    return f"{fingerprint(encoder.path)}-{_short_hash(repr(encoder.config))[:8]}"


def text_key(text: str, tower: TextTowerInfo | str) -> str:
    """Names a text's embedding by what it was made of. `tower`: a file's, or a name for the checkpoint's own."""
    return f"text-{_short_hash(text)}-{tower_name(tower)}"


def word_list_key(words: Sequence[str], tower: TextTowerInfo | str) -> str:
    """Names the embeddings of a whole list by what they were made of."""
    return f"words-{_short_hash(chr(10).join(words))}-{tower_name(tower)}"


def tower_name(tower: TextTowerInfo | str) -> str:
    """Changes with a text tower's file, with the config and with the tokenizer beside it; of a name, the name."""
    if isinstance(tower, str):
        return tower
    beside = [tower.path.with_name(name) for name in TOKENIZER_FILES]
    words = [fingerprint(path) for path in beside if path.is_file()]
    return f"{fingerprint(tower.path)}-{_short_hash(repr((tower.config, words)))[:8]}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


class EmbedStore:
    """Embeddings by key, the last few in memory, more on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
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
        write_quietly(self._path(key), lambda path: save_file(kept, str(path), seal))
        prune(self._folder, EMBEDS_BYTES)

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
        return self._folder / f"{key}.safetensors"


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
        self._folder = folder

    def put(self, picture: Picture) -> None:
        """Keep a picture, losslessly."""
        path = self._folder / f"{picture.hash}.png"
        if path.is_file():
            with suppress(OSError):
                os.utime(path)  # used just now, so pruned last
            return
        write_quietly(path, lambda target: picture.image.save(target, "PNG", compress_level=1))
        prune(self._folder, PICTURES_BYTES)

    def get(self, picture_hash: str) -> Image.Image | None:
        """The picture of that hash, or None when it was never used here, is gone, or is not the same any more."""
        path = self.path(picture_hash)
        if path is None:
            return None
        with suppress(PictureError):
            found = read_kept(path)
            if found.hash == picture_hash:
                return found.image
        with suppress(OSError):
            path.unlink()  # damaged; kept anew when it is used next
        return None

    def path(self, picture_hash: str) -> Path | None:
        """The file that keeps the picture of that hash, or None."""
        path = self._folder / f"{picture_hash}.png"
        return path if re.fullmatch(r"[0-9a-f]{32}", picture_hash) and path.is_file() else None


def write_quietly(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all; a failure is logged and forgotten."""
    try:
        write_whole(path, write, alone=False)
    except (OSError, SafetensorError) as error:
        log.warning("%s could not be kept: %s", path.name, error)


def prune(folder: Path, limit: int) -> None:
    """Delete the files used longest ago until the folder holds at most `limit` bytes."""
    try:
        newest_first = sorted(_files(folder), key=lambda file: -file.stat().st_mtime)
        total = 0
        for file in newest_first:
            total += file.stat().st_size
            if total > limit:
                file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("The cache folder %s could not be tidied: %s", folder, error)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.is_file())
