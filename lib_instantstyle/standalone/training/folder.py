"""A folder of pictures with captions: NAME.txt beside NAME.png, or a metadata.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from ...reference.pictures import SUFFIXES, decode_picture
from ...units.errors import InstantStyleError, PictureError
from .captions import NONE, read_metadata
from .crops import RawSample
from .draws import shuffled

METADATA = "metadata.jsonl"


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
    """Every picture below the folder, in order of its path. Raises InstantStyleError when there is none."""
    told = read_metadata(folder / METADATA) if (folder / METADATA).is_file() else {}
    paths = {path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()}
    paths |= told.keys()
    if not paths:
        raise InstantStyleError(
            f"There is no picture in {folder}. Put PNG or JPEG files there, each with its caption in a .txt beside it, "
            f"or in {METADATA}.",
            "data",
        )
    return [Entry(path, told.get(path) or _beside(path)) for path in sorted(paths)]


def _beside(path: Path) -> tuple[str, ...]:
    try:
        return (path.with_suffix(".txt").read_text("utf-8-sig").strip(),)
    except FileNotFoundError:
        return NONE
    except UnicodeDecodeError:
        raise InstantStyleError(f"{path.with_suffix('.txt')} is not UTF-8 text. Save it as UTF-8.", "data") from None


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
        raise InstantStyleError("None of the pictures can be read. Look at the messages above.", "data")
