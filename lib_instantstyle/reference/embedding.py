"""Pictures and texts to embeddings, each computed once: what the store lacks is encoded in one go, models are let go.

Speaks to a Host only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..files.image_encoders import EncoderInfo, Feature, ImageEncoder
from ..files.text_towers import TextTower, TextTowerInfo, tokenizer_beside
from ..units.errors import IncompatibleModelError, TextTowerNotFoundError
from .host import Host
from .names import embeds_key, encoder_name, text_key, tower_name, words_key
from .pictures import Picture
from .views import View

GREY = "grey"  # stands for the hash of the mid-grey picture
BATCH = 48  # texts encoded at once, and kept together of a long list: one or two seconds' work of a busy CPU

log = logging.getLogger("InstantStyle")

Found = TypeVar("Found")
Encode = Callable[[Sequence[str]], Tensor]  # texts → (texts, width)
Done = Callable[[float], object]  # hears which share of a long work is done, 0..1


class Embedder:
    """Embeddings from the host's store, or from models that are loaded for as long as it takes.

    It looks at each file once in its life to name what is read by it, so it should not be kept: files change.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._encoders: dict[Path, str] = {}
        self._towers: dict[Path, str] = {}

    def images(self, wanted: Sequence[tuple[View | None, Feature]], info: EncoderInfo) -> list[Tensor]:
        """(1, width) or (1, tokens, width) for each view, None being the mid-grey picture; one loading for all.

        The pictures may let go of their pixels afterwards: they are known by their hashes.
        """
        name, dtype = self.encoder_name(info), self._dtype()
        keys = [embeds_key(view.name if view else GREY, name, of, dtype) for view, of in wanted]

        def encode(missing: Mapping[str, tuple[View | None, Feature]]) -> dict[str, Tensor]:
            return self._with_room(info.path.name, lambda *place: _encode(ImageEncoder(info, *place), missing))

        found = self._stored(dict(zip(keys, wanted)), encode)
        return [found[key] for key in keys]  # not named anew: the file may have changed since

    def texts(self, texts: Sequence[str], tower: TextTowerInfo | None) -> Tensor:
        """(texts, width) pooled, projected embeddings; None: by the checkpoint's own tower, which is loaded anyway."""
        name = self._tower_name(texts, tower)
        if name is None:
            return self._encoded(texts, tower)
        keys = [text_key(text, name, self._dtype()) for text in texts]

        def encode(missing: Mapping[str, str]) -> dict[str, Tensor]:
            return {key: row[None] for key, row in zip(missing, self._encoded(list(missing.values()), tower))}

        found = self._stored(dict(zip(keys, texts)), encode)
        return torch.cat([found[key] for key in keys])

    def word_list(
        self, words: Sequence[str], tower: TextTowerInfo | None, done: Done, until: Callable[[], bool] = lambda: False
    ) -> Tensor | None:
        """As `texts` for a long list, which is kept in parts: `done` hears the share of words that are there.

        None when `until` said so after a part was read; the next call goes on with the next part.
        """
        name = self._tower_name(words, tower)
        if name is None:  # nothing can be kept
            return self._encoded(words, tower, done)
        store, dtype = self.host.embed_store, self._dtype()
        parts = {words_key(part, name, dtype): part for part in _parts(words)}
        kept = {key: store.get(key) for key in parts}
        found = {key: one for key, one in kept.items() if one is not None and len(one) == len(parts[key])}

        def read(encode: Encode) -> None:
            for key in [key for key in parts if key not in found]:
                found[key] = encode(parts[key])
                store.put(key, found[key])
                done(len(found) / len(parts))
                if until():
                    return

        if len(found) < len(parts):
            self._read_by(tower, read)
        return torch.cat([found[key] for key in parts]) if len(found) == len(parts) else None

    def unkept_image(self, picture: Picture, info: EncoderInfo, feature: Feature) -> Tensor:
        """(1, width) or (1, tokens, width) for a picture that is seen once, and leaves nothing in the store."""
        return self._with_room(info.path.name, lambda *place: ImageEncoder(info, *place).encode(picture.image, feature))

    def _encoded(self, texts: Sequence[str], tower: TextTowerInfo | None, done: Done = lambda share: None) -> Tensor:
        return self._read_by(tower, lambda encode: _in_batches(encode, texts, done))

    def _read_by(self, tower: TextTowerInfo | None, work: Callable[[Encode], Found]) -> Found:
        """Work with what encodes texts, loaded once."""
        if tower is None:
            return work(self._by_the_checkpoint)
        return self._with_room(tower.path.name, lambda *place: work(self._loaded(tower, *place).encode))

    def _by_the_checkpoint(self, texts: Sequence[str]) -> Tensor:
        embeds = self.host.checkpoint_text_embeds(texts)
        if not torch.isfinite(embeds).all():
            raise IncompatibleModelError(
                "The checkpoint's second text encoder produces NaN or infinite values. Start the WebUI with "
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

    def encoder_name(self, encoder: EncoderInfo) -> str:
        """Changes with the encoder's file and config, as far as it was seen when first asked about."""
        if encoder.path not in self._encoders:
            self._encoders[encoder.path] = encoder_name(encoder)
        return self._encoders[encoder.path]

    def _tower_name(self, texts: Sequence[str], tower: TextTowerInfo | None) -> str | None:
        if tower is None:
            return self.host.checkpoint_name(texts)
        if tower.path not in self._towers:
            self._towers[tower.path] = tower_name(tower)
        return self._towers[tower.path]

    def _dtype(self) -> torch.dtype:
        return self.host.encoder_device()[1]

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


def _parts(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]


def _in_batches(encode: Encode, texts: Sequence[str], done: Done) -> Tensor:
    found = []
    for part in _parts(texts):
        found.append(encode(part))
        done(len(found) * BATCH / len(texts))
    return torch.cat(found)


def _encode(encoder: ImageEncoder, missing: Mapping[str, tuple[View | None, Feature]]) -> dict[str, Tensor]:
    return {key: _encode_one(encoder, view, feature) for key, (view, feature) in missing.items()}


def _encode_one(encoder: ImageEncoder, view: View | None, feature: Feature) -> Tensor:
    if view is None:
        return encoder.encode_grey(feature)
    if view.noise:
        return encoder.encode_shuffled(view.image, feature, view.seed)
    return encoder.encode(view.image, feature, view.crop, view.counts)
