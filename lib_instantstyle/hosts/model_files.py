"""Adapter and encoder files: the folders people keep them in, what is in there, and which goes with which."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from ..core.checkpoint import AdapterInfo, inspect_adapter
from ..core.clip_vision import EncoderInfo, Feature, inspect_encoder
from ..core.errors import AdapterNotFoundError, CheckpointError, EncoderNotFoundError
from ..core.tensor_files import SHARD_INDEX_SUFFIX, SUFFIXES, mentions
from ..core.units import AUTO_ADAPTER
from .downloads import DOWNLOADS, Download

Info = TypeVar("Info", AdapterInfo, EncoderInfo)

# Adapters taught for one purpose look like the general ones; `auto` takes them last. The user can always name them.
SPECIAL_PURPOSES = ("face", "composition")


@dataclass
class Shelf(Generic[Info]):
    """The files of one kind in some folders. Each file is inspected once and again only when it changes."""

    folders: Callable[[], Sequence[Path]]  # most important first; a file stands for itself
    sign: str  # a word that every file of the kind has in its table of names
    inspect: Callable[[Path], Info]
    told_apart_by: str  # "name" where files are asked for by name, else "path": half the encoders are called model
    _known: dict[tuple[Path, int, int], Info | CheckpointError | None] = field(default_factory=dict)

    def usable(self) -> list[Info]:
        """What can be used; of several files that cannot be told apart the first counts."""
        first: dict[object, Info] = {}
        for entry in self._entries():
            if not isinstance(entry, CheckpointError):
                first.setdefault(getattr(entry, self.told_apart_by), entry)
        return list(first.values())

    def unusable(self) -> list[CheckpointError]:
        """Why the files that look like the kind but cannot be used are refused."""
        return [entry for entry in self._entries() if isinstance(entry, CheckpointError)]

    def named(self, name: str) -> Info | CheckpointError | None:
        """The file of that name (with or without ending): what it is, why it is refused, or None."""
        for path in self._paths():
            if name in (path.stem, path.name) and (entry := self._entry(path)) is not None:
                return entry
        return None

    def _entries(self) -> Iterator[Info | CheckpointError]:
        for path in self._paths():
            if (entry := self._entry(path)) is not None:
                yield entry

    def _paths(self) -> Iterator[Path]:
        for folder in self.folders():
            inside = [folder] if folder.is_file() else folder.rglob("*")
            found = [path for path in inside if path.name.endswith((*SUFFIXES, SHARD_INDEX_SUFFIX))]
            yield from sorted(found, key=lambda path: (path.suffix != ".safetensors", path))

    def _entry(self, path: Path) -> Info | CheckpointError | None:
        try:
            stat = path.stat()
        except OSError:
            return None
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._known:
            self._known[key] = self._inspected(path)
        return self._known[key]

    def _inspected(self, path: Path) -> Info | CheckpointError | None:
        if not mentions(path, self.sign):
            return None
        try:
            return self.inspect(path)
        except CheckpointError as error:
            return error


@dataclass
class ModelFiles:
    """All installed adapters and encoders."""

    adapter_folders: Callable[[], Sequence[Path]]
    encoder_folders: Callable[[], Sequence[Path]]

    def __post_init__(self) -> None:
        self.adapters: Shelf[AdapterInfo] = Shelf(self.adapter_folders, "to_k_ip", inspect_adapter, "name")
        self.encoders: Shelf[EncoderInfo] = Shelf(self.encoder_folders, "class_embedding", inspect_encoder, "path")

    def adapter(self, name: str) -> AdapterInfo:
        """The adapter of that name. Raises AdapterNotFoundError, or the CheckpointError that says why it is refused."""
        if name == AUTO_ADAPTER:
            return self._best_adapter()
        found = self.adapters.named(name)
        if isinstance(found, CheckpointError):
            raise CheckpointError(found.message, "adapter")
        if found is None:
            listed = ", ".join(info.name for info in self.adapters.usable()) or "none"
            raise AdapterNotFoundError(f"There is no adapter called {name!r}. Installed: {listed}.", "adapter")
        return found

    def _best_adapter(self) -> AdapterInfo:
        ranked = sorted(self.adapters.usable(), key=self._rank)
        if not ranked:
            raise AdapterNotFoundError(missing_adapter_advice(self.adapter_folders()), "adapter")
        return ranked[0]

    def _rank(self, info: AdapterInfo) -> tuple[bool, bool, bool, int, int, str]:
        """What `auto` prefers: an encoder at hand, then general before special, base before plus (so that a content
        prompt works), the widest CLIP space (bigG, the paper's), all blocks."""
        has_encoder = self._encoder_for(info.feature) is not None
        special = any(word in info.name.lower() for word in SPECIAL_PURPOSES)
        return (
            not has_encoder,
            special,
            info.feature.kind != "pooled",
            -info.feature.width,
            -len(info.layer_widths),
            info.name,
        )

    def encoder(self, feature: Feature) -> EncoderInfo:
        """An encoder whose output is `feature`. Raises EncoderNotFoundError naming the file to get."""
        found = self._encoder_for(feature)
        if found is None:
            raise EncoderNotFoundError(missing_encoder_advice(feature, self.encoder_folders()), "adapter")
        return found

    def _encoder_for(self, feature: Feature) -> EncoderInfo | None:
        return next((info for info in self.encoders.usable() if info.gives(feature)), None)


def missing_adapter_advice(folders: Sequence[Path]) -> str:
    """What to do when there is no adapter at all."""
    download = DOWNLOADS["ip-adapter_sdxl.safetensors"]
    return (
        f"No SDXL IP-Adapter is installed. Download {download.file_name} ({download.gigabytes}) with the button in the "
        f"InstantStyle panel, or put it into {_first(folders)}."
    )


def missing_encoder_advice(feature: Feature, folders: Sequence[Path]) -> str:
    """What to do when the encoder for `feature` is missing."""
    known = encoder_download(feature)
    file = f"{known.file_name} ({known.gigabytes})" if known else feature.encoder_name
    return (
        f"The image encoder {feature.encoder_name} is not installed. Download {file} with the button in the "
        f"InstantStyle panel, or put it into {_first(folders)}."
    )


def encoder_download(feature: Feature) -> Download | None:
    """The published encoder file that gives `feature`, or None when none is known."""
    return next((x for x in DOWNLOADS.values() if (feature.kind, feature.width) in x.gives), None)


def _first(folders: Sequence[Path]) -> str:
    return str(folders[0]) if folders else "the models folder"
