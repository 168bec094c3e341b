"""Reading tensors by name out of the files people have, without loading what is not asked for.

Safetensors and zipped PyTorch files are memory-mapped: shapes cost nothing, a tensor costs its own bytes.
Pickles are only ever read with `weights_only=True`.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from .errors import CheckpointError

PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
SHARD_INDEX_SUFFIX = ".index.json"
MAX_NAME_TABLE = 1 << 26  # bytes looked through for names; real tables are a few hundred kilobytes


class TensorFile(Protocol):
    """Named tensors of one file (or one sharded set): shapes for free, contents on demand."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor: ...


class SafetensorsFile:
    """A .safetensors file."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(str(path), framework="pt", device="cpu")
        self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._file.keys()}  # noqa: SIM118

    def read(self, name: str) -> Tensor:
        return self._file.get_tensor(name)


class PickledFile:
    """A PyTorch file; nested dicts are flattened to dotted names, anything but tensors is passed over."""

    def __init__(self, path: Path) -> None:
        loaded = torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        if not isinstance(loaded, Mapping):  # the WebUI's own guard answers None for a pickle it refuses
            raise CheckpointError(f"{path.name} holds no dictionary of tensors, or was refused as unsafe.")
        self._tensors = dict(_flatten(loaded))
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


class ShardedFile:
    """Several files and the `….index.json` that says which tensor lies in which."""

    def __init__(self, path: Path) -> None:
        weight_map: dict[str, str] = json.loads(path.read_text("utf-8"))["weight_map"]
        parts = {name: open_tensors(path.parent / Path(name).name) for name in set(weight_map.values())}
        self._part_of = {name: parts[part] for name, part in weight_map.items()}
        self.shapes = {name: part.shapes[name] for name, part in self._part_of.items()}

    def read(self, name: str) -> Tensor:
        return self._part_of[name].read(name)


def open_tensors(path: Path) -> TensorFile:
    """Open a file of named tensors. Raises CheckpointError, naming the file, when it is missing, broken or unsafe."""
    try:
        return _reader_for(path)(path)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path.name} is not there any more. Refresh the list of files.") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path.name} is refused: it is a pickle that holds more than tensors, or no PyTorch file at all. "
            "Use the .safetensors version of this file."
        ) from None
    except Exception as error:  # a broken file makes its reader raise whatever it likes
        first_line = str(error).split("\n", 1)[0]
        raise CheckpointError(f"{path.name} is truncated or broken ({first_line}). Download it again.") from error


def _reader_for(path: Path) -> Callable[[Path], TensorFile]:
    if path.name.endswith(SHARD_INDEX_SUFFIX):
        return ShardedFile
    return SafetensorsFile if path.suffix == ".safetensors" else PickledFile


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")


def mentions(path: Path, word: str) -> bool:
    """Whether a file's table of names contains `word`; quick, reads no tensor and runs no pickle."""
    try:
        return word.encode() in _name_table(path)
    except Exception:  # no file that could be read, so none of the kind
        return False


def _name_table(path: Path) -> bytes:
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            tables = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
            return b"".join(archive.open(entry).read(MAX_NAME_TABLE) for entry in tables)
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little") if path.suffix == ".safetensors" else 1 << 20
        return head + file.read(min(length, MAX_NAME_TABLE))
