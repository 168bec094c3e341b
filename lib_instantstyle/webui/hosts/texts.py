"""Content prompts as the WebUI's own text encoder is to read them: as one phrase, with the words it was taught."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from modules import shared


def literally(text: str) -> str:
    """Keep the WebUI from reading brackets as emphasis and BREAK as an order: the text is one phrase, as it stands."""
    if shared.opts.emphasis == "None":
        return text
    as_read = text.lower()  # by CLIP, which knows no capitals
    return "".join(f"\\{letter}" if letter in "()[]\\" else letter for letter in as_read)


def inversions_in(texts: Sequence[str], database: Any) -> str:
    """A hash of the vectors that the WebUI puts in the place of words in the texts; "" when it does not."""
    spoken, found = "\n".join(texts).lower(), hashlib.sha256()
    known = sorted(database.word_embeddings.items())
    named = [(name, one.vec) for name, one in known if name.lower() in spoken]
    for name, vectors in named:
        found.update(name.encode())
        for tensor in vectors.values() if isinstance(vectors, dict) else [vectors]:  # SDXL's: for each text encoder
            found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:16] if named else ""


@contextmanager
def unnoted(*notebooks: tuple[Any, str]) -> Iterator[None]:
    """The WebUI notes what the texts it encodes are made of, for the infotext of a job; ours are no part of it.

    Each notebook is an object and its attribute that holds the notes.
    """
    kept = [(place, name, copy(getattr(place, name))) for place, name in notebooks]
    try:
        yield
    finally:
        for place, name, notes in kept:
            setattr(place, name, notes)
