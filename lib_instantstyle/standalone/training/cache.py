"""A folder encoded once: the frozen networks see each picture and each caption one single time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...reference.names import fingerprint
from ...units.errors import PictureError
from ..model_identity import identity
from .batches import Examples, drawn_caption
from .crops import cut, none_readable
from .curve import Bar
from .draws import Draw
from .folder import Entry, index_of
from .frozen_encoders import FrozenEncoders
from .row_store import THERE, UNREADABLE, RowStore
from .settings import Settings

PICTURES_AT_ONCE, CAPTIONS_AT_ONCE = 8, 32


class Cache:
    """The encoded pictures and captions of a folder, in memory-mapped files below the output folder."""

    def __init__(self, entries: Sequence[Entry], encoders: FrozenEncoders, settings: Settings) -> None:
        self._entries, self._encoders, self._settings = entries, encoders, settings
        self._captions = sorted({caption for entry in entries for caption in entry.captions} | {""})
        self._row_of = {caption: row for row, caption in enumerate(self._captions)}
        self._pool = ThreadPoolExecutor(settings.workers)
        half = encoders.pipe.unet.dtype != torch.float32
        dtype: Any = np.float16 if half else np.float32
        base, folder = identity(settings.base), settings.out / "cache"
        self._pictures = RowStore(folder / self._picture_key(base, dtype), len(entries), self._picture_shapes(), dtype)
        text_key = _key("captions", base, dtype.__name__, *self._captions)
        self._texts = RowStore(folder / text_key, len(self._captions), self._caption_shapes(), dtype)
        self.skipped: dict[str, str] = {}
        self._usable: list[int] = []

    def fill(self, bar: Bar, share: int = 0, of: int = 1) -> None:
        """Encode what is missing; a share of it, where several processes work at the same files."""
        rows = self._pictures.missing(share, of)
        _advance(bar("pictures encoded", len(rows)), self._pictures.fill(rows, self._encode_pictures, PICTURES_AT_ONCE))
        rows = self._texts.missing(share, of)
        _advance(bar("captions encoded", len(rows)), self._texts.fill(rows, self._encode_captions, CAPTIONS_AT_ONCE))

    def finish(self) -> None:
        """Look at what was filled. Raises InstantStyleError when no picture could be read."""
        state = self._pictures.state
        for row in np.flatnonzero(state == UNREADABLE).tolist():
            self.skipped[str(self._entries[row].path)] = _why(self._entries[row])
        self._usable = np.flatnonzero(state == THERE).tolist()
        if not self._usable:
            raise none_readable(self.skipped)
        self._encoders.let_encoder_go()

    def take(self, draws: Sequence[Draw]) -> Examples:
        rows = [self._usable[index_of(draw.number, len(self._usable), self._settings.seed)] for draw in draws]
        read = self._pictures.read
        captions = [drawn_caption(self._entries[row].captions, draw) for row, draw in zip(rows, draws)]
        return Examples(read("moments", rows), read("features", rows), read("time_ids", rows), captions)

    def contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [self._row_of[caption] for caption in captions]
        return self._texts.read("context", rows), self._texts.read("pooled", rows)

    def position(self) -> list[int]:
        return []

    def seek(self, position: Sequence[int]) -> None:
        pass

    def _picture_key(self, base: str, dtype: Any) -> str:
        files = [f"{entry.path}:{_stamp(entry.path)}" for entry in self._entries]
        info, feature, size = self._encoders.info, self._encoders.feature, str(self._settings.size)
        encoder = fingerprint(info.path) if info else "none"
        return _key("pictures", base, encoder, repr(feature), size, dtype.__name__, *files)

    def _picture_shapes(self) -> dict[str, tuple[int, ...]]:
        vae, size = self._encoders.pipe.vae.config, self._settings.size or 0
        side = size // 2 ** (len(vae.block_out_channels) - 1)
        features = tuple(self._encoders.no_picture().shape)
        return {"moments": (2, vae.latent_channels, side, side), "features": features, "time_ids": (6,)}

    def _caption_shapes(self) -> dict[str, tuple[int, ...]]:
        context, pooled = self._encoders.contexts([""])
        return {"context": tuple(context.shape[1:]), "pooled": tuple(pooled.shape[1:])}

    def _encode_pictures(self, rows: Sequence[int]) -> dict[int, Mapping[str, Tensor]]:
        opened = self._pool.map(lambda row: _opened(self._entries[row]), rows)
        found = {row: image for row, image in zip(rows, opened) if image is not None}
        if not found:
            return {}
        images = list(found.values())
        crops = [cut(image, self._settings.size or 0) for image in images]
        moments = self._encoders.moments(torch.stack([crop.pixels for crop in crops]))
        features = self._encoders.features(images)
        return {
            row: {"moments": moments[at], "features": features[at], "time_ids": crops[at].time_ids}
            for at, row in enumerate(found)
        }

    def _encode_captions(self, rows: Sequence[int]) -> dict[int, Mapping[str, Tensor]]:
        context, pooled = self._encoders.contexts([self._captions[row] for row in rows])
        return {row: {"context": context[at], "pooled": pooled[at]} for at, row in enumerate(rows)}


def _opened(entry: Entry) -> Any:
    try:
        return entry.open()
    except PictureError:
        return None


def _why(entry: Entry) -> str:
    try:
        entry.open()
    except PictureError as error:
        return error.message
    return f"{entry.path} could not be read when it was encoded; delete the cache folder to try again."


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "none"
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _advance(told: Callable[[int], object], done: Any) -> None:
    for count in done:
        told(count)


def _key(kind: str, *parts: str) -> str:
    return f"{kind}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"
