"""Adapter, encoder, text tower and LoRA files: the folders people keep them in, what is there, what goes together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..units.errors import AdapterNotFoundError, CheckpointError, EncoderNotFoundError, TextTowerNotFoundError
from ..units.groups import AUTO_ADAPTER
from .adapters import AdapterInfo, inspect_adapter
from .downloads import DOWNLOADS, Download
from .image_encoders import EncoderInfo, Feature, inspect_encoder
from .lora_shelf import LoraShelf
from .shelf import Info, Shelf, is_there
from .text_towers import TextTowerInfo, inspect_text_tower

# Adapters taught for one purpose look like the general ones by their contents. `auto` takes these last, by the whole of
# the name they are published under; the user can always name them.
SPECIAL_PURPOSES = (
    "ip-adapter-plus-face_sdxl_vit-h",
    "ip_plus_composition_sdxl",
    "ip-adapter_plus_composition_sdxl",
)
MOST_NAMED = 3  # unusable files that are named where a usable one is missing


@dataclass
class ModelFiles:
    """All installed adapters, encoders, text towers and LoRAs; encoders and towers are often in one file."""

    adapter_folders: Callable[[], Sequence[Path]]
    encoder_folders: Callable[[], Sequence[Path]]
    configured: Callable[[], Mapping[Path, str]] = dict  # folders that somebody named, and where they did
    said: Callable[[Path], str] = str  # how a message names a folder; answers to the outside tell no whole paths
    lora_folders: Callable[[], Sequence[Path]] = list

    def __post_init__(self) -> None:
        self.adapters: Shelf[AdapterInfo] = Shelf(self.adapter_folders, "to_k_ip", inspect_adapter, "name")
        self.encoders: Shelf[EncoderInfo] = Shelf(self.encoder_folders, "class_embedding", inspect_encoder, "path")
        self.text_towers: Shelf[TextTowerInfo] = Shelf(
            self.encoder_folders, "token_embedding", inspect_text_tower, "path"
        )
        self.loras = LoraShelf(self.lora_folders)

    def adapter(self, name: str) -> AdapterInfo:
        """The adapter of that name. Raises AdapterNotFoundError, or the CheckpointError that says why it is refused."""
        if name == AUTO_ADAPTER:
            return self._best_adapter()
        found = self.adapters.named(name)
        if isinstance(found, CheckpointError):
            raise CheckpointError(found.message, "adapter")
        if found is None:
            listed = ", ".join(info.name for info in self.adapters.usable()) or "none"
            raise AdapterNotFoundError(
                f"There is no adapter called {name!r}. Installed: {listed}.{self._lost()}", "adapter"
            )
        return found

    def _best_adapter(self) -> AdapterInfo:
        ranked = sorted(self.adapters.usable(), key=self._rank)
        if not ranked:
            raise AdapterNotFoundError(f"{self.adapter_advice()}{self._beside(self.adapters)}", "adapter")
        return ranked[0]

    def _rank(self, info: AdapterInfo) -> tuple[bool, bool, bool, int, int, str]:
        """What `auto` prefers: an encoder at hand, then general before special, base before plus (so that a content
        prompt works), the widest CLIP space (bigG, the paper's), all blocks."""
        has_encoder = self._encoder_for(info.feature) is not None
        special = info.name.lower() in SPECIAL_PURPOSES or info.nothing_is_zeros
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
            raise EncoderNotFoundError(f"{self.encoder_advice(feature)}{self._beside(self.encoders)}", "adapter")
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
            advice = f"{self.text_advice(encoder)}{self._beside(self.text_towers)}"
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
            f"the InstantStyle panel, or put it into {self._first(self.adapter_folders())}."
        )

    def encoder_advice(self, feature: Feature) -> str:
        """What to do when the encoder for `feature` is missing."""
        known, place = encoder_download(feature), self._first(self.encoder_folders())
        if known is None:
            return f"The adapter needs {feature.encoder_name}, and none is installed. Put it into {place}."
        return (
            f"The image encoder {feature.encoder_name} is not installed. Download {known.file_name} "
            f"({known.gigabytes}) with the button in the InstantStyle panel, or put it into {place}."
        )

    def text_advice(self, encoder: EncoderInfo) -> str:
        """What to do when no text tower goes with an image encoder."""
        published = _FULL_MODELS.get((encoder.config["hidden_size"], encoder.config["projection_dim"]))
        file = f"the full CLIP model {published}, model.safetensors with both encoders (huggingface.co/{published})"
        return (
            f"A content prompt for this adapter needs the text encoder that was trained with {encoder.path.name}. No "
            f"file that contains it is installed. Put {file if published else 'the full CLIP model it belongs to'} "
            f"into {self._first(self.encoder_folders())}, or leave the content prompt empty."
        )

    def missing_folders(self) -> list[str]:
        """A sentence for each folder that somebody named and that does not exist."""
        return [
            f"The folder {self.said(folder)}, named in {place}, does not exist."
            for folder, place in self.configured().items()
            if not is_there(folder)
        ]

    def _beside(self, shelf: Shelf[Info]) -> str:
        """Why what is missed may be there all the same: in a folder by another name, cut short, or as a pointer."""
        refused = [error.message for error in shelf.unusable()]
        more = len(refused) - MOST_NAMED
        rest = f" (and {more} more)" if more > 0 else ""
        found = f" Files that were found but cannot be used{rest}: {' '.join(refused[:MOST_NAMED])}" if refused else ""
        return f"{self._lost()}{found}"

    def _lost(self) -> str:
        return "".join(f" {sentence}" for sentence in self.missing_folders())

    def _first(self, folders: Sequence[Path]) -> str:
        return self.said(folders[0]) if folders else "the models folder"


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
