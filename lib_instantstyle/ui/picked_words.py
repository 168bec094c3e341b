"""Words that are picked from a list, in a prompt that people also write by hand."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def parts(prompt: str) -> list[str]:
    """What commas part in the prompt, without empty parts."""
    return [part for part in (piece.strip() for piece in prompt.split(",")) if part]


def with_picked(prompt: str, offered: Collection[str], picked: Sequence[str]) -> str:
    """The prompt with every picked word and without the offered ones that are not picked; the rest stays as written."""
    kept = [part for part in parts(prompt) if part in picked or part not in offered]
    return ", ".join([*kept, *(word for word in picked if word not in kept)])


def picked_in(prompt: str, offered: Sequence[str]) -> list[str]:
    """The offered words that stand in the prompt as they are."""
    written = parts(prompt)
    return [word for word in offered if word in written]
