"""Names for what is computed from files, pictures and texts: each changes with whatever it was made of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..files.image_encoders import EncoderInfo, Feature
from ..files.tensor_files import whole_of
from ..files.text_towers import TextTowerInfo
from ..units.errors import CheckpointError

READING = 2  # raise it when pictures or texts are prepared differently: what is kept is then computed anew
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json")  # beside a text tower: they decide what it reads
_EDGE = 1 << 20  # bytes hashed at either end of an encoder file
_SAMPLES, _SAMPLE = 32, 1 << 12  # places in between, and bytes hashed at each


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
        raise CheckpointError(f"{path.name} can no longer be read ({error.strerror}). Refresh the list.") from None
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


def encoder_name(encoder: EncoderInfo) -> str:
    """Changes with an encoder's file and with the config beside it."""
    return f"{fingerprint(encoder.path)}-{_short_hash(repr(encoder.config))[:8]}"


def tower_name(tower: TextTowerInfo | str) -> str:
    """Changes with a text tower's file, with the config and with the tokenizer beside it; of a name, the name."""
    if isinstance(tower, str):
        return tower
    beside = [tower.path.with_name(name) for name in TOKENIZER_FILES]
    words = [fingerprint(path) for path in beside if path.is_file()]
    return f"{fingerprint(tower.path)}-{_short_hash(repr((tower.config, words)))[:8]}"


def embeds_key(view: str, encoder: str, feature: Feature, dtype: torch.dtype) -> str:
    """Names a view's embedding by what it was made of; `view` is its name, `encoder` as `encoder_name` has it."""
    return f"{view}-{encoder}-{feature.kind}-{_made_in(dtype)}"


def text_key(text: str, tower: str, dtype: torch.dtype) -> str:
    """Names a text's embedding by what it was made of; `tower` as `tower_name` has it."""
    return f"text-{_short_hash(text)}-{tower}-{_made_in(dtype)}"


def words_key(words: Sequence[str], tower: str, dtype: torch.dtype) -> str:
    """Names the embeddings of several words together by what they were made of."""
    return f"words-{_short_hash(chr(10).join(words))}-{tower}-{_made_in(dtype)}"


def _made_in(dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')}-v{READING}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
