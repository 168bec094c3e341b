"""WebDataset shards: .tar files in which what belongs together has one name, like 0001.png and 0001.txt or 0001.json.

Read by tarfile as a stream; nothing is unpacked to disk. Every process reads shards of its own, and in them shuffles
a window of samples. Where a process stands is two numbers, so a training goes on where it was.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

from ...reference.pictures import SUFFIXES, decode_picture
from ...units.errors import InstantStyleError, PictureError
from ..hidden import is_hidden
from .captions import NONE, of_file
from .captions import SUFFIXES as CAPTIONS
from .crops import RawSample, none_readable
from .draws import shuffled

SHARDS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")  # what tarfile reads everywhere
UNREAD = (".tar.zst", ".tzst", ".tar.lz4", ".tar.z")
READ = {*SUFFIXES, *CAPTIONS}  # endings of a sample
WINDOW = 256  # samples that are shuffled among each other, in memory as compressed files


def find_shards(data: Path) -> list[Path]:
    """The shards that a folder and those in it, a file or a pattern names; none where the path is no matter of shards.

    Raises InstantStyleError for a compression that Python does not read, and for a folder of pictures beside shards.
    """
    if data.is_dir():
        files = [path for path in sorted(data.rglob("*")) if not is_hidden(path.relative_to(data)) and path.is_file()]
        found = _shards(files)
        if found and (picture := next((path for path in files if path.suffix.lower() in SUFFIXES), None)):
            raise InstantStyleError(
                f"{data} contains both shards like {found[0].name} and pictures like {picture.name}. Use a folder of "
                "one kind.",
                "data",
            )
        return found
    if data.is_file():
        return _shards([data])
    return _shards(sorted(data.parent.glob(data.name))) if "*" in data.name else []


def _shards(files: Sequence[Path]) -> list[Path]:
    if unread := next((path for path in files if path.name.lower().endswith(UNREAD)), None):
        raise InstantStyleError(
            f"{unread} is compressed in a format that Python cannot read. Unpack it to a .tar, or compress it as "
            ".tar.gz.",
            "data",
        )
    return [path for path in files if path.name.lower().endswith(SHARDS)]


@dataclass(frozen=True, eq=False)
class Member:
    """The files of one sample, by their endings; of those that nobody reads the ending alone."""

    name: str  # for people: shard and key
    files: dict[str, bytes] = field(default_factory=dict)

    def sample(self) -> RawSample:
        """The picture and its captions. Raises PictureError naming the sample."""
        data = next((self.files[ending] for ending in self.files if ending in SUFFIXES), None)
        if data is None:
            raise PictureError(f"{self.name} has no picture (found {', '.join(self.files)}).{self._hint()}")
        try:
            return RawSample(self.name, decode_picture(data), self.captions())
        except PictureError as error:
            raise PictureError(f"{self.name}: {error.message}") from None

    def captions(self) -> tuple[str, ...]:
        """Raises PictureError where they cannot be read."""
        for ending in CAPTIONS:
            try:
                told = of_file(self.files[ending], ending) if ending in self.files else None
            except ValueError:  # no JSON, or no UTF-8
                raise PictureError("its caption is neither JSON nor UTF-8 text.") from None
            if told is not None:
                return told
        return NONE

    def _hint(self) -> str:
        if self.name.endswith(":metadata"):
            return " A table inside a shard is not read: put each caption beside its picture, like 0001.txt."
        if any(ending.endswith(SUFFIXES) for ending in self.files):
            return " What stands behind the first dot of a name is its ending: name the files without other dots."
        return ""


def members(shard: Path) -> Iterator[Member]:
    """The samples of a shard, in its order. Raises InstantStyleError naming a shard that is broken."""
    found: Member | None = None
    try:
        with tarfile.open(shard, "r|*") as archive:
            for entry in archive:
                key, ending = _key(entry.name)
                file = archive.extractfile(entry) if entry.isfile() and ending else None
                if file is None:
                    continue
                name = f"{shard.name}:{key}"
                if found is None or found.name != name:
                    if found is not None:
                        yield found
                    found = Member(name)
                found.files[ending] = file.read() if ending in READ else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InstantStyleError(
            f"{shard} is not a tar file or is truncated ({error}). Copy it again.", "data"
        ) from None
    if found is not None:
        yield found


def _key(name: str) -> tuple[str, str]:
    """What a file of a shard is called without its ending, and its ending; hidden files have none."""
    folder, _, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    shown = ending and not is_hidden(PurePosixPath(name))
    return (f"{folder}/{stem}" if folder else stem), f".{ending.lower()}" if shown else ""


class ShardSamples:
    """The samples of this process's shards, epoch after epoch, each time in another order."""

    def __init__(self, shards: Sequence[Path], seed: int, process: int, processes: int) -> None:
        """Raises InstantStyleError when there are fewer shards than processes."""
        if len(shards) < processes:
            raise InstantStyleError(
                f"Each process reads its own shards, so {processes} processes need at least {processes}; there are "
                f"{len(shards)}. Split the data into more shards.",
                "data",
            )
        self._shards, self._seed, self._process, self._processes = list(shards), seed, process, processes
        self._epoch, self._taken, self._found = 0, 0, False
        self._stream = self._samples(0)
        self.skipped: dict[str, str] = {}

    def sample(self) -> RawSample:
        """The next sample that can be read. Raises InstantStyleError when a whole epoch has none."""
        while True:
            member = next(self._stream, None)
            if member is None:
                self._next_epoch()
                continue
            self._taken += 1
            try:
                found = member.sample()
            except PictureError as error:
                self.skipped[member.name] = error.message
                continue
            self._found = True
            return found

    def position(self) -> list[int]:
        return [self._epoch, self._taken]

    def seek(self, position: Sequence[int]) -> None:
        """Go on behind that many samples of that epoch; they are passed over, not decoded."""
        self._epoch, self._taken = position
        self._found = True
        self._stream = islice(self._samples(self._epoch), self._taken, None)

    def _next_epoch(self) -> None:
        if not self._found:
            raise none_readable(self.skipped)
        self._epoch, self._taken, self._found = self._epoch + 1, 0, False
        self._stream = self._samples(self._epoch)

    def _samples(self, epoch: int) -> Iterator[Member]:
        order = shuffled(len(self._shards), self._seed, "shards", epoch)[self._process :: self._processes]
        inside = (member for shard in order for member in members(self._shards[shard]))
        for window in iter(lambda: list(islice(inside, WINDOW)), []):
            for at in shuffled(len(window), self._seed, "window", epoch, window[0].name):
                yield window[at]
