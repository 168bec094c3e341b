"""The files of one kind in some folders: which can be used, which are refused, and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from ..units.errors import CheckpointError
from .containers import mentions, stranger
from .tensor_files import may_hold_tensors, whole_of

Stamps = tuple[tuple[int, ...], ...]  # of a file and of what belongs to it


class Named(Protocol):
    """What a file is, once it was inspected."""

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str: ...


Info = TypeVar("Info", bound=Named)


class NotAModel(CheckpointError):
    """A pointer, a web page, an empty file: whatever was to be there, perhaps it is what somebody misses."""


@dataclass
class Shelf(Generic[Info]):
    """The files of one kind in some folders. Each file is inspected once and again only when it changes."""

    folders: Callable[[], Sequence[Path]]  # most important first; a file stands for itself
    sign: str  # a word that every file of the kind has in its table of names; "": there is none
    inspect: Callable[[Path], Info]
    told_apart_by: str  # "name" where files are asked for by name, else "path": half the encoders are called model
    _known: dict[Path, tuple[Stamps, Info | CheckpointError | None]] = field(default_factory=dict)

    def usable(self) -> list[Info]:
        """What can be used; of several files that cannot be told apart the first counts."""
        first: dict[object, Info] = {}
        for entry in self._entries():
            if not isinstance(entry, CheckpointError):
                first.setdefault(getattr(entry, self.told_apart_by), entry)
        return list(first.values())

    def unusable(self) -> list[CheckpointError]:
        """Why files are refused: those that are not models under a model's name first, then those of the kind."""
        refused = [entry for entry in self._entries() if isinstance(entry, CheckpointError)]
        return sorted(refused, key=lambda entry: not isinstance(entry, NotAModel))

    def named(self, name: str) -> Info | CheckpointError | None:
        """The file of that name (with or without ending): what it is, or why it is refused, or None."""
        found = [self._entry(path) for path in self.paths() if name in (path.stem, path.name)]
        known = [entry for entry in found if entry is not None]
        return next((entry for entry in known if not isinstance(entry, CheckpointError)), known[0] if known else None)

    def paths(self) -> Iterator[Path]:
        """The files that may be of the kind, by folder; none is opened."""
        for folder in self.folders():
            inside = [folder] if is_file(folder) else _files_below(folder)
            yield from sorted(filter(may_hold_tensors, inside), key=_safetensors_first)

    def _entries(self) -> Iterator[Info | CheckpointError]:
        for path in self.paths():
            if (entry := self._entry(path)) is not None:
                yield entry

    def _entry(self, path: Path) -> Info | CheckpointError | None:
        if not is_file(path):  # nor a pipe, which would be waited for without end
            return None
        stamp = tuple(map(_stamp, (*whole_of(path), path.with_name("config.json"))))
        if path not in self._known or self._known[path][0] != stamp:
            self._known[path] = stamp, self._inspected(path)
        return self._known[path][1]

    def _inspected(self, path: Path) -> Info | CheckpointError | None:
        try:
            if why := stranger(path):
                return NotAModel(why)
            return self.inspect(path) if mentions(path, self.sign) else None
        except CheckpointError as error:
            return CheckpointError(error.message)  # without its traceback, which holds what was read of the file
        except OSError as error:  # it may not be read, or lies on a disk that is gone
            return NotAModel(f"{path.name} cannot be read ({error.strerror or type(error).__name__}).")


def is_file(path: Path) -> bool:
    """Whether there is a file; one behind a folder that may not be entered counts as none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_there(path: Path) -> bool:
    """Whether there is anything; what may not be looked at counts as there."""
    try:
        return path.exists()
    except OSError:
        return True


def _safetensors_first(path: Path) -> tuple[bool, Path]:
    return path.suffix.lower() != ".safetensors", path


def _files_below(folder: Path) -> Iterator[Path]:
    """Also behind links to folders, as the WebUI looks for models; a link back up is followed once."""
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(here, name) for name in names if not name.startswith("._"))  # macOS's notes on files


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when a file is written, or another is copied over it; of no file nothing."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
