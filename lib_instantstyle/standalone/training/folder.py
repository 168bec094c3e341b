"""A folder of pictures with captions: NAME.txt, .caption or .json beside NAME.png, or a metadata table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from ...reference.pictures import SUFFIXES, decode_picture
from ...units.errors import InstantStyleError, PictureError
from ..hidden import is_hidden
from .captions import NONE, TABLES, of_file, read_table, tables_in
from .captions import SUFFIXES as CAPTIONS
from .crops import RawSample, none_readable
from .draws import shuffled


@dataclass(frozen=True)
class Entry:
    """A picture that is there, read when it is needed."""

    path: Path
    captions: tuple[str, ...]

    def sample(self) -> RawSample:
        """The picture and its captions. Raises PictureError naming the file."""
        return RawSample(str(self.path), self.open(), self.captions)

    def open(self) -> Image.Image:
        """The picture, upright and in RGB. Raises PictureError naming the file."""
        try:
            return decode_picture(self.path.read_bytes())
        except PictureError as error:
            raise PictureError(f"{self.path}: {error.message}") from None
        except OSError as error:
            raise PictureError(f"{self.path} cannot be read ({error.strerror}).") from None


def list_folder(folder: Path) -> list[Entry]:
    """Every picture below the folder, in order of its path, with the captions that some table or file there gives it.

    Raises InstantStyleError when there is none, or a table is wrong.
    """
    files = [path for path in folder.rglob("*") if not is_hidden(path.relative_to(folder)) and path.is_file()]
    told: dict[Path, tuple[str, ...]] = {}
    for table in tables_in(files):
        told |= read_table(table)
    beside = _beside(files)
    paths = {path for path in files if path.suffix.lower() in SUFFIXES} | told.keys()
    if not paths:
        raise InstantStyleError(
            f"There is no picture in {folder}. Put PNG or JPEG files there, each with its caption in a .txt file "
            f"beside it, or in {TABLES[0]}.",
            "data",
        )
    return [Entry(path, told.get(path) or _read(beside, path)) for path in sorted(paths)]


def one_picture(path: Path) -> Entry:
    """A picture by itself, with the caption in a file beside it."""
    return Entry(path, _read(_beside(file for file in path.parent.iterdir() if file.is_file()), path))


def _beside(files: Iterable[Path]) -> dict[Path, list[Path]]:
    """The files of captions by the picture's path without its ending, or with it: a.txt, a.TXT, a.png.txt."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(files, key=lambda path: path.name):
        if path.suffix.lower() in CAPTIONS:
            found.setdefault(path.with_suffix(""), []).append(path)
    return {key: sorted(paths, key=lambda path: CAPTIONS.index(path.suffix.lower())) for key, paths in found.items()}


def _read(beside: Mapping[Path, Sequence[Path]], picture: Path) -> tuple[str, ...]:
    for path in (*beside.get(picture.with_suffix(""), ()), *beside.get(picture, ())):
        try:
            captions = of_file(path.read_bytes(), path.suffix.lower())
        except ValueError:
            kind = "JSON" if path.suffix.lower() == ".json" else "UTF-8 text"
            raise InstantStyleError(f"{path} is not {kind}. Save it as UTF-8.", "data") from None
        if captions is not None:
            return captions
    return NONE


def index_of(number: int, count: int, seed: int) -> int:
    """Which of `count` pictures sample `number` shows: every epoch shows each once, shuffled anew."""
    epoch, at = divmod(number, count)
    return _order(count, seed, epoch)[at]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    return shuffled(count, seed, "order", epoch)


class FolderSamples:
    """The pictures of a folder, opened anew each time."""

    def __init__(self, entries: list[Entry], seed: int) -> None:
        self._entries, self._seed = entries, seed
        self.skipped: dict[str, str] = {}

    def sample(self, number: int) -> RawSample:
        """Sample n; where a picture cannot be read, the next one that can."""
        first = index_of(number, len(self._entries), self._seed)
        for step in range(len(self._entries)):
            entry = self._entries[(first + step) % len(self._entries)]
            if str(entry.path) not in self.skipped:
                try:
                    return entry.sample()
                except PictureError as error:
                    self.skipped[str(entry.path)] = error.message
        raise none_readable(self.skipped)
