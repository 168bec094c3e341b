"""Pictures and texts to embeddings, each computed once: what the store lacks is encoded in one go, models are let go.

Speaks to a Host only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..files.image_encoders import EncoderInfo, Feature, ImageEncoder
from ..files.text_towers import TextTower, TextTowerInfo, tokenizer_beside
from ..units.errors import IncompatibleModelError, TextTowerNotFoundError
from .host import Host
from .pictures import Picture
from .store import embeds_key, text_key, word_list_key

GREY = "grey"  # stands for the hash of the mid-grey picture
BATCH = 32  # texts encoded between two words about how far it is

log = logging.getLogger("InstantStyle")

Found = TypeVar("Found")
Done = Callable[[float], object]  # hears which share of a long work is done, 0..1


@dataclass(frozen=True)
class Embedder:
    """Embeddings from the host's store, or from models that are loaded for as long as it takes."""

    host: Host

    def images(self, wanted: Sequence[tuple[Picture | None, Feature]], info: EncoderInfo) -> list[Tensor]:
        """(1, width) or (1, tokens, width) for each picture, None being the mid-grey one; one loading for all."""
        keys = [embeds_key(picture.hash if picture else GREY, info, of) for picture, of in wanted]

        def encode(missing: Mapping[str, tuple[Picture | None, Feature]]) -> dict[str, Tensor]:
            return self._with_room(info.path.name, lambda *place: _encode(ImageEncoder(info, *place), missing))

        found = self._stored(dict(zip(keys, wanted)), encode)
        return [found[key] for key in keys]  # not named anew: the file may have changed since

    def texts(self, texts: Sequence[str], tower: TextTowerInfo | None) -> Tensor:
        """(texts, width) pooled, projected embeddings; None: by the checkpoint's own tower, which is loaded anyway."""
        name = tower or self.host.checkpoint_name(texts)
        if name is None:
            return self._encoded(texts, tower)
        keys = [text_key(text, name) for text in texts]

        def encode(missing: Mapping[str, str]) -> dict[str, Tensor]:
            return {key: row[None] for key, row in zip(missing, self._encoded(list(missing.values()), tower))}

        found = self._stored(dict(zip(keys, texts)), encode)
        return torch.cat([found[key] for key in keys])

    def word_list(self, words: Sequence[str], tower: TextTowerInfo | None, done: Done) -> Tensor:
        """As `texts`, kept as a whole and encoded batch by batch; `done` hears the share of words after each."""
        name = tower or self.host.checkpoint_name(words)
        key = word_list_key(words, name) if name else None
        kept = self.host.embed_store.get(key) if key else None
        if kept is not None and len(kept) == len(words):
            return kept
        embeds = self._encoded(words, tower, done)
        if key:
            self.host.embed_store.put(key, embeds)
        return embeds

    def unkept_image(self, picture: Picture, info: EncoderInfo, feature: Feature) -> Tensor:
        """(1, width) or (1, tokens, width) for a picture that is seen once, and leaves nothing in the store."""
        return self._with_room(info.path.name, lambda *place: ImageEncoder(info, *place).encode(picture.image, feature))

    def _encoded(self, texts: Sequence[str], tower: TextTowerInfo | None, done: Done = lambda share: None) -> Tensor:
        if tower is None:
            return _in_batches(self._by_the_checkpoint, texts, done)
        name = tower.path.name
        return self._with_room(name, lambda *place: _in_batches(self._loaded(tower, *place).encode, texts, done))

    def _by_the_checkpoint(self, texts: Sequence[str]) -> Tensor:
        embeds = self.host.checkpoint_text_embeds(texts)
        if not torch.isfinite(embeds).all():
            raise IncompatibleModelError(
                "The checkpoint's second text encoder gives values that are not numbers. Start the WebUI with "
                "--no-half, choose another checkpoint, or leave the content prompt empty.",
                "content_prompt",
            )
        return embeds

    def _stored(
        self, named: Mapping[str, Found], encode: Callable[[Mapping[str, Found]], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Embeddings by key; `encode` is called once, with what the store lacks."""
        store = self.host.embed_store
        found = {key: embeds for key in named if (embeds := store.get(key)) is not None}
        if missing := {key: one for key, one in named.items() if key not in found}:
            for key, embeds in encode(missing).items():
                store.put(key, embeds)
                found[key] = embeds
        return found

    def _with_room(self, name: str, work: Callable[[torch.device, torch.dtype], Found]) -> Found:
        """Work with a model on the host's device, or on the CPU where that is too small."""
        try:
            with self.host.room_for_encoder():
                return work(*self.host.encoder_device())
        except torch.cuda.OutOfMemoryError:
            log.warning("%s does not fit into the device's memory; it runs on the CPU instead.", name)
        return work(torch.device("cpu"), torch.float32)

    def _loaded(self, tower: TextTowerInfo, device: torch.device, dtype: torch.dtype) -> TextTower:
        tokenize = tokenizer_beside(tower.path) or self.host.tokenizer()
        if tokenize is None:
            raise TextTowerNotFoundError(
                f"{tower.path.name} has no tokenizer beside it. Put vocab.json and merges.txt of the same model into "
                f"{tower.path.parent}.",
                "content_prompt",
            )
        return TextTower(tower, tokenize, device, dtype)


def _in_batches(encode: Callable[[Sequence[str]], Tensor], texts: Sequence[str], done: Done) -> Tensor:
    found = []
    for at in range(0, len(texts), BATCH):
        found.append(encode(texts[at : at + BATCH]))
        done(min(at + BATCH, len(texts)) / len(texts))
    return torch.cat(found)


def _encode(encoder: ImageEncoder, missing: Mapping[str, tuple[Picture | None, Feature]]) -> dict[str, Tensor]:
    return {
        key: encoder.encode(picture.image, feature) if picture else encoder.encode_grey(feature)
        for key, (picture, feature) in missing.items()
    }
