"""Adapter, encoder and text tower files: the folders people keep them in, what is there, and which goes with which."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from ..units.errors import AdapterNotFoundError, CheckpointError, EncoderNotFoundError, TextTowerNotFoundError
from ..units.groups import AUTO_ADAPTER
from .adapters import AdapterInfo, inspect_adapter
from .containers import mentions
from .downloads import DOWNLOADS, Download
from .image_encoders import EncoderInfo, Feature, inspect_encoder
from .tensor_files import SHARD_INDEX_SUFFIX, SUFFIXES, whole_of
from .text_towers import TextTowerInfo, inspect_text_tower

Info = TypeVar("Info", AdapterInfo, EncoderInfo, TextTowerInfo)
Stamps = tuple[tuple[int, ...], ...]  # of a file and of what belongs to it

# Adapters taught for one purpose look like the general ones; `auto` takes them last. The user can always name them.
SPECIAL_PURPOSES = ("face", "composition")
MOST_NAMED = 3  # unusable files that are told of where a usable one is missing


@dataclass
class Shelf(Generic[Info]):
    """The files of one kind in some folders. Each file is inspected once and again only when it changes."""

    folders: Callable[[], Sequence[Path]]  # most important first; a file stands for itself
    sign: str  # a word that every file of the kind has in its table of names
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
            inside = [folder] if folder.is_file() else _files_below(folder)
            found = [path for path in inside if path.name.endswith((*SUFFIXES, SHARD_INDEX_SUFFIX))]
            yield from sorted(found, key=lambda path: (path.suffix != ".safetensors", path))

    def _entry(self, path: Path) -> Info | CheckpointError | None:
        if not path.is_file():  # nor a pipe, which would be waited for without end
            return None
        stamp = tuple(map(_stamp, (*whole_of(path), path.with_name("config.json"))))
        if path not in self._known or self._known[path][0] != stamp:
            self._known[path] = stamp, self._inspected(path)
        return self._known[path][1]

    def _inspected(self, path: Path) -> Info | CheckpointError | None:
        if not mentions(path, self.sign):
            return None
        try:
            return self.inspect(path)
        except CheckpointError as error:
            return CheckpointError(error.message)  # without its traceback, which holds what was read of the file


def _files_below(folder: Path) -> Iterator[Path]:
    """Also behind links to folders, as the WebUI looks for models; a link back up is followed once."""
    seen: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(here, name) for name in names)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when a file is written, or another is copied over it; of no file nothing."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


@dataclass
class ModelFiles:
    """All installed adapters, encoders and text towers; the latter two in the same folders, often in one file."""

    adapter_folders: Callable[[], Sequence[Path]]
    encoder_folders: Callable[[], Sequence[Path]]

    def __post_init__(self) -> None:
        self.adapters: Shelf[AdapterInfo] = Shelf(self.adapter_folders, "to_k_ip", inspect_adapter, "name")
        self.encoders: Shelf[EncoderInfo] = Shelf(self.encoder_folders, "class_embedding", inspect_encoder, "path")
        self.text_towers: Shelf[TextTowerInfo] = Shelf(
            self.encoder_folders, "token_embedding", inspect_text_tower, "path"
        )

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
            raise AdapterNotFoundError(f"{self.adapter_advice()}{_beside(self.adapters)}", "adapter")
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
            raise EncoderNotFoundError(f"{self.encoder_advice(feature)}{_beside(self.encoders)}", "adapter")
        return found

    def _encoder_for(self, feature: Feature) -> EncoderInfo | None:
        return next((info for info in self.encoders.usable() if info.gives(feature)), None)

    def text_tower(
        self, encoder: EncoderInfo, own_width: int | None, *, pristine: bool = False
    ) -> TextTowerInfo | None:
        """The file whose text tower goes with `encoder`, or None where the checkpoint's own does.

        `own_width` is that of the checkpoint's pooled text, None if it has none. Its own tower goes before files unless
        the `pristine` one is asked for and installed. Raises TextTowerNotFoundError naming the file to get.
        """
        own_fits = own_width == encoder.config["projection_dim"]
        found = None if own_fits and not pristine else self._text_tower_for(encoder)
        if found is None and not own_fits:
            advice = f"{self.text_advice(encoder)}{_beside(self.text_towers)}"
            raise TextTowerNotFoundError(advice, "content_prompt")
        return found

    def _text_tower_for(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        """The encoder's own file before others, files with both towers before those that cannot be told apart."""
        fitting = [info for info in self.text_towers.usable() if info.pairs_with(encoder)]
        ranked = sorted(fitting, key=lambda info: (info.path != encoder.path, info.vision_width is None))
        return ranked[0] if ranked else None

    def adapter_advice(self) -> str:
        """What to do when there is no adapter at all."""
        download = DOWNLOADS["ip-adapter_sdxl.safetensors"]
        return (
            f"No SDXL IP-Adapter is installed. Download {download.file_name} ({download.gigabytes}) with the button in "
            f"the InstantStyle panel, or put it into {_first(self.adapter_folders())}."
        )

    def encoder_advice(self, feature: Feature) -> str:
        """What to do when the encoder for `feature` is missing."""
        known = encoder_download(feature)
        file = f"{known.file_name} ({known.gigabytes})" if known else feature.encoder_name
        return (
            f"The image encoder {feature.encoder_name} is not installed. Download {file} with the button in the "
            f"InstantStyle panel, or put it into {_first(self.encoder_folders())}."
        )

    def text_advice(self, encoder: EncoderInfo) -> str:
        """What to do when no text tower goes with an image encoder."""
        published = _FULL_MODELS.get((encoder.config["hidden_size"], encoder.config["projection_dim"]))
        file = f"the full CLIP model {published}, model.safetensors with both towers (huggingface.co/{published})"
        return (
            f"A content prompt for this adapter needs the text tower that was trained with {encoder.path.name}, and "
            f"no file with it is installed. Put {file if published else 'the full CLIP model it is a part of'} into "
            f"{_first(self.encoder_folders())}, or leave the content prompt empty."
        )


def _beside(shelf: Shelf[Info]) -> str:
    """What is there and cannot be used: perhaps it is the very file that is missed, cut short."""
    refused = [error.message for error in shelf.unusable()][:MOST_NAMED]
    return f" What is there cannot be used: {' '.join(refused)}" if refused else ""


# Where a file with both towers is published, by the hidden and projection width of its image encoder. None is offered
# as a download: a download needs a hash that can be trusted.
_FULL_MODELS = {
    (1280, 1024): "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    (1664, 1280): "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
    (1024, 768): "openai/clip-vit-large-patch14",
}


def encoder_download(feature: Feature) -> Download | None:
    """The published encoder file that gives `feature`, or None when none is known."""
    return next((x for x in DOWNLOADS.values() if (feature.kind, feature.width) in x.gives), None)


def _first(folders: Sequence[Path]) -> str:
    return str(folders[0]) if folders else "the models folder"
