"""Words that are picked from a list, in a prompt that people also write by hand."""

from __future__ import annotations

from collections.abc import Sequence

from ...units.phrases import parse_phrases


def parts(prompt: str) -> list[str]:
    """What commas part in the prompt, without empty parts."""
    return [part for part in (piece.strip() for piece in prompt.split(",")) if part]


def toggled(prompt: str, word: str, is_picked: bool) -> str:
    """The prompt with the word at its end, or without it, weighted or not; the rest stays as written."""
    if is_picked and word not in map(_said, parts(prompt)):
        return ", ".join([*parts(prompt), word])
    return ", ".join(part for part in parts(prompt) if is_picked or _said(part) != word)


def picked_in(prompt: str, offered: Sequence[str]) -> list[str]:
    """The offered words that stand in the prompt, weighted or not."""
    written = {_said(part) for part in parts(prompt)}
    return [word for word in offered if word in written]


def _said(part: str) -> str:
    """A part of a prompt without its weight."""
    phrases = parse_phrases(part)
    return phrases[0].text if len(phrases) == 1 else part
