"""CLIP's tokens for the world's captions, renumbered to the few that occur."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from .models import CONTEXT_LENGTH
from .scenes import PALETTES, PLACES, SIZES, SUBJECTS, TEXTURES

TOKENIZER = Path(__file__).parent / "weights" / "tokenizer"
FILLERS = (
    "a", "an", "the", "in", "on", "of", "and", "with", ",", ".", "colors", "picture", "style",
    "image", "photo", "drawing", "object", "thing", "one", "no",
)  # fmt: skip


@lru_cache
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(TOKENIZER)


@lru_cache
def known_tokens() -> tuple[int, ...]:
    """CLIP's numbers of all tokens that captions use: ascending, start and end of text last."""
    words = (*FILLERS, *SUBJECTS, *PLACES, *SIZES, *PALETTES, *TEXTURES)
    pieces = {token for word in words for token in tokenizer()(word).input_ids[1:-1]}
    return (*sorted(pieces), tokenizer().bos_token_id, tokenizer().eos_token_id)


def token_ids(texts: list[str], length: int = CONTEXT_LENGTH) -> Tensor:
    """(n, length) tokens of captions in the small numbering, filled up with the end of text."""
    rows = tokenizer()(texts, padding="max_length", max_length=length, truncation=True).input_ids
    number = {token: small for small, token in enumerate(known_tokens())}
    return torch.tensor([[number[token] for token in row] for row in rows])
