"""What a person should know before a long training begins: captions that are missing, too long, or not read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from ...units.errors import PictureError
from .captions import UNREAD_TABLES
from .folder import Entry
from .shards import members

LOOKED_AT = 1000  # pictures of a folder whose captions are counted
PEEKED_AT = 64  # samples of the first shard, likewise
CLIP_TOKENS = 77
FEWEST_CHARACTERS = CLIP_TOKENS - 2  # a shorter text cannot have more tokens


def notices(data: Path, entries: Sequence[Entry], shards: Sequence[Path], tokenize: Callable[[str], int]) -> list[str]:
    """Sentences, most often none. `tokenize` counts a text's tokens. Raises InstantStyleError for a broken shard."""
    captions = [entry.captions for entry in entries[:LOOKED_AT]] or list(islice(_in_shard(shards[0]), PEEKED_AT))
    return [*_empty(captions), *_long(captions, tokenize), *_unread(data)]


def _empty(captions: Sequence[tuple[str, ...]]) -> Iterator[str]:
    if captions and not any(text for texts in captions for text in texts):
        yield (
            f"None of the first {len(captions)} pictures has a caption, so the training sees only empty prompts. Put "
            "each caption beside its picture, like cat.txt beside cat.png."
        )


def _long(captions: Sequence[tuple[str, ...]], tokenize: Callable[[str], int]) -> Iterator[str]:
    texts = [text for texts in captions for text in texts if len(text) > FEWEST_CHARACTERS]
    if count := sum(tokenize(text) > CLIP_TOKENS for text in texts):
        yield (
            f"{count} captions of the first {len(captions)} pictures are longer than CLIP's {CLIP_TOKENS} tokens; the "
            "rest of them is cut off, as in the official recipe."
        )


def _unread(data: Path) -> Iterator[str]:
    for name in UNREAD_TABLES:
        if (data / name).is_file():
            yield f"{data / name} is not read. Save it as metadata.jsonl, or put captions beside the pictures."


def _in_shard(shard: Path) -> Iterator[tuple[str, ...]]:
    for member in members(shard):
        try:
            yield member.captions()
        except PictureError:
            continue
