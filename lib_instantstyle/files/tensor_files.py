"""Reading tensors by name out of the files people have, without loading what is not asked for.

Safetensors and zipped PyTorch files are memory-mapped: shapes cost nothing, a tensor costs its own bytes.
Pickles are only ever read with `weights_only=True`, and only out of archives that torch.save makes.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..units.errors import CheckpointError
from ..units.fields import shown
from .containers import MAX_NAME_TABLE, SHARD_INDEX_SUFFIX, check_container, container_of, stranger

PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)  # of files worth looking into; which kind one is its contents tell
MAX_TENSORS = 100_000  # of one file; a whole SDXL checkpoint has 2,500
MAX_NAMES = 1 << 22  # characters of all names of a pickle together
MAX_CLAIMED = 2  # what a pickle's tensors may add up to, in sizes of the file: some are tied to each other


class TensorFile(Protocol):
    """Named tensors of one file (or one sharded set): shapes for free, contents on demand."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor:
        """A weight. Raises CheckpointError when it is not there, or does not hold floating-point numbers."""
        ...


class SafetensorsFile:
    """A safetensors file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = safe_open(str(path), framework="pt", device="cpu")
        names = self._file.keys()
        _check_count(path, len(names))
        self.shapes = {name: tuple(self._file.get_slice(name).get_shape()) for name in names}

    def read(self, name: str) -> Tensor:
        return _weight(self._path, name, self._file.get_tensor)


class PickledFile:
    """A PyTorch file; nested dicts are flattened to dotted names, anything but tensors is passed over."""

    def __init__(self, path: Path) -> None:
        check_container(path)
        loaded = _unpickled(path)
        if not isinstance(loaded, Mapping):  # the WebUI's own guard answers None for a pickle it refuses
            raise CheckpointError(f"{path.name} does not hold a dictionary of tensors, or was refused as unsafe.")
        self._path = path
        self._tensors = _flatten(loaded)
        _check_count(path, len(self._tensors))
        _check_claims(path, self._tensors.values())
        self.shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        return _weight(self._path, name, self._tensors.__getitem__)


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=container_of(path) == "zip")
    except SafetensorError:  # newer versions of torch go by the ending
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)


class ShardedFile:
    """Several files and the `….index.json` that says which tensor lies in which."""

    def __init__(self, path: Path) -> None:
        weight_map = _weight_map(path)
        _check_count(path, len(weight_map))
        parts = {name: open_tensors(_part(path, name)) for name in set(weight_map.values())}
        self._part_of = {name: parts[part] for name, part in weight_map.items()}
        self.shapes = {name: part.shapes[name] for name, part in self._part_of.items()}

    def read(self, name: str) -> Tensor:
        return self._part_of[name].read(name)


def _weight_map(index: Path) -> dict[str, str]:
    if index.stat().st_size > MAX_NAME_TABLE:
        raise ValueError("it is far too large")
    found: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
    return found


def whole_of(path: Path) -> list[Path]:
    """The file itself and, of an index, the files that it names."""
    if not path.name.lower().endswith(SHARD_INDEX_SUFFIX):
        return [path]
    try:
        return [path, *(_part(path, name) for name in sorted(set(_weight_map(path).values())))]
    except Exception:  # a broken one, which names none
        return [path]


def _part(index: Path, name: str) -> Path:
    """The file of that name beside the index, whatever path it is given with."""
    part = index.parent / Path(name).name
    if not part.name.lower().endswith(SUFFIXES):
        raise ValueError(f"{shown(name)} is not a file of tensors")
    return part


def may_hold_tensors(path: Path) -> bool:
    """Whether a file is worth looking into, by its ending in capitals or not."""
    return path.name.lower().endswith((*SUFFIXES, SHARD_INDEX_SUFFIX))


def open_tensors(path: Path) -> TensorFile:
    """Open a file of named tensors. Raises CheckpointError, naming the file, when it is missing, broken or unsafe."""
    try:
        return _reader_for(path)(path)
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path.name} no longer exists. Refresh the list of files.") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path.name} is refused: it is a pickle that holds more than tensors, or is not a PyTorch file at all. "
            "Use the .safetensors version of this file."
        ) from None
    except PermissionError:
        raise CheckpointError(
            f"{path.name} cannot be opened: permission denied. Change the file's permissions."
        ) from None
    except Exception as error:  # a broken file makes its reader raise whatever it likes
        first_line = str(error).replace(str(path), path.name).split("\n", 1)[0][:200]  # folders are nobody's business
        raise CheckpointError(f"{path.name} is truncated or broken ({first_line}). Download it again.") from error


def _reader_for(path: Path) -> Callable[[Path], TensorFile]:
    if why := stranger(path):
        raise CheckpointError(why)
    kind = container_of(path)
    if kind == "other":
        raise CheckpointError(f"{path.name} is not a model file (expected .safetensors or a PyTorch file).")
    readers: dict[str, Callable[[Path], TensorFile]] = {"index": ShardedFile, "safetensors": SafetensorsFile}
    return readers.get(kind, PickledFile)


def _weight(path: Path, name: str, read: Callable[[str], Tensor]) -> Tensor:
    try:
        tensor = read(name)
    except Exception as error:  # the file is not what it was when its names were read
        raise CheckpointError(
            f"{path.name}: {shown(name)} cannot be read ({shown(str(error))}). Download it again."
        ) from None
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{path.name} stores {shown(name)} as {str(tensor.dtype).removeprefix('torch.')}; weights must be "
            "floating-point numbers. Quantised files cannot be used; get the 16-bit or 32-bit version."
        )
    return tensor


def _check_count(path: Path, count: int) -> None:
    if count > MAX_TENSORS:
        raise CheckpointError(f"{path.name} names {count} tensors, more than any adapter or encoder has.")


def _check_claims(path: Path, tensors: Iterable[Tensor]) -> None:
    """A pickle may say of a few bytes that they are a tensor of any size: nothing is read of one that does."""
    claimed = 0
    for tensor in tensors:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(f"{path.name} holds sparse, quantised or empty tensors, which cannot be used.")
        claimed += tensor.numel() * tensor.element_size()
    if claimed > MAX_CLAIMED * path.stat().st_size:
        raise CheckpointError(f"{path.name} is damaged: its tensors claim {claimed} bytes, more than the file holds.")


def _flatten(tree: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Raises ValueError for dicts that hold each other without end."""
    found: dict[str, Tensor] = {}
    waiting, letters = [("", tree)], 0
    while waiting:
        prefix, branch = waiting.pop()
        for name, value in branch.items():
            letters += len(prefix) + len(str(name)) + 1
            if letters > MAX_NAMES:
                raise ValueError("its dictionaries unfold without end")
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Mapping):
                waiting.append((f"{prefix}{name}.", value))
    return found


def few(names: Iterable[str]) -> str:
    """The first three of some names, in the alphabet's order, as a message quotes them."""
    return ", ".join(shown(name) if len(name) > 60 or not name.isprintable() else name for name in sorted(names)[:3])
