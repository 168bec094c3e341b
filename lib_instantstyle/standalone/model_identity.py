"""What tells one model from another: on this machine, or wherever a copy of it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from ..files.tensor_files import SUFFIXES
from ..reference.names import fingerprint, sampled_content
from .hidden import is_hidden
from .models import Checkpoint, description_of

_TEXT = (".json", ".txt")  # configurations and tokenizers
# What a diffusers folder is made of. Results may lie in it, too, and are no part of the model.
PARTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
# Of it, what a checkpoint file is opened with: no weights.
DESCRIBING = ("model_index.json", *(f"{part}/*{kind}" for part in PARTS for kind in _TEXT))


def identity(model: str | Path) -> str:
    """A file's fingerprint, a folder's files with size and time, or a Hub id."""
    return _told(model, fingerprint, _listing)


def content_identity(model: str | Path) -> str:
    """The same for every copy of a model: sizes and samples of its files, whatever their time; or a Hub id."""
    return _told(model, sampled_content, _contents)


def description_identity(checkpoint: Checkpoint) -> str:
    """The same for every copy of what describes a checkpoint file."""
    return described(description_of(checkpoint))


def described(config: str) -> str:
    """Changes with the configs and tokenizers of a diffusers folder, not with what else lies there; or a Hub id."""
    folder = Path(config)
    if not folder.is_dir():
        return config
    return _content(folder, (file for pattern in DESCRIBING for file in folder.glob(pattern) if file.is_file()))


def _told(model: str | Path, of_file: Callable[[Path], str], of_folder: Callable[[Path], str]) -> str:
    path = Path(model).expanduser()
    if path.is_file():
        return of_file(path)
    return of_folder(path) if path.is_dir() else str(model)


def _listing(folder: Path) -> str:
    files = sorted((file, file.stat()) for file in folder.rglob("*") if file.is_file())
    return _hash(f"{file.relative_to(folder)}:{stat.st_size}:{stat.st_mtime_ns}" for file, stat in files)


def _contents(folder: Path) -> str:
    files = (file for file in folder.rglob("*") if file.suffix in (*SUFFIXES, *_TEXT) and file.is_file())
    return _content(folder, (file for file in files if not is_hidden(file.relative_to(folder))))


def _content(folder: Path, files: Iterable[Path]) -> str:
    return _hash(f"{file.relative_to(folder).as_posix()}:{sampled_content(file)}" for file in sorted(files))


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
