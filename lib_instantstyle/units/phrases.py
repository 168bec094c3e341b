"""Content prompts as several weighted phrases, and the text that stands for "unrelated".

The syntax is the WebUI's own for emphasis: `(x)` × 1.1, `[x]` ÷ 1.1, `(x:1.3)` × 1.3, nested at will; `\\(` is a
bracket that means itself. Phrases are parted by commas. No text is refused: what is no emphasis is read as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PROMPT = 2000  # characters; a text tower reads 77 tokens, and brackets within brackets take their time
MAX_PHRASES = 32  # of one prompt; the time that *auto* takes grows with their third power
MAX_WEIGHT = 2.0  # that of content_scale; below 0 a phrase would be added, so 0 is the other end
EMPHASIS = 1.1

# What unrelated text looks like to a picture: common things that have little to do with each other. The median of their
# similarities is taken, so that a reference which does show one of them is none the worse.
PROBES = (
    "a spreadsheet",
    "a circuit board",
    "a dentist",
    "a plate of pasta",
    "an aeroplane",
    "a staircase",
    "a football match",
    "a bar of soap",
    "a harbour crane",
)


@dataclass(frozen=True)
class Phrase:
    """A few words and how much they count."""

    text: str
    weight: float = 1.0


_TOKEN = re.compile(
    r"\\(?P<escaped>[\\()\[\]])|(?P<open>[(\[])"
    r"|:\s*(?P<factor>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>[)\]])|(?P<letter>.)",
    re.DOTALL,
)
_NETWORK = re.compile(r"<\w+:[^<>]+>")
_EDIT = re.compile(r"\[(?:[^][:]*:)?(?P<to>[^][:]*):\s*\d*\.?\d+\s*\]")
_TURNS = re.compile(r"\[(?P<first>[^][|]*)\|[^][]*\]")
_AND = re.compile(r"(?::\s*[+-]?\d*\.?\d+)?\s*\b(?:BREAK|AND)\b\s*")
_OPENED_BY = {")": "(", "]": "["}


def parse_phrases(text: str) -> tuple[Phrase, ...]:
    """The phrases of a content prompt in their order, each once, with its greatest weight; those of weight 0 are gone.

    Where emphasis covers a part of a phrase only, the phrase has the mean weight of its letters.
    """
    weights: dict[str, float] = {}
    for letters in _split_at_commas(_weighted_letters(text[:MAX_PROMPT])):
        words = " ".join("".join(letter for letter, _ in letters).split())
        counted = [weight for letter, weight in letters if not letter.isspace()]
        if counted:
            weights[words] = max(sum(counted) / len(counted), weights.get(words, 0.0))
    return tuple(Phrase(words, weight) for words, weight in weights.items() if weight > 0)


def plain_prompt(text: str) -> str:
    """A prompt as a sentence, without what it tells the WebUI: `<lora:…>`, emphasis and weights, BREAK and AND.

    Of `[from:to:when]` what stands at the end is left, of `[this|that]` the first. What is no syntax stays.
    """
    text = _NETWORK.sub("", text[:MAX_PROMPT])
    for _ in range(text.count("[")):  # innermost first
        text = _EDIT.sub(lambda found: found["to"], _TURNS.sub(lambda found: found["first"], text, count=1), count=1)
    text = _AND.sub(", ", text)
    words = " ".join("".join(letter for letter, _ in _weighted_letters(text)).split())
    return re.sub(r"(\s*,)+", ",", words).strip(", ")


def _split_at_commas(letters: list[tuple[str, float]]) -> Iterator[list[tuple[str, float]]]:
    phrase: list[tuple[str, float]] = []
    for letter, weight in letters:
        if letter == ",":
            yield phrase
            phrase = []
        else:
            phrase.append((letter, weight))
    yield phrase


def _weighted_letters(text: str) -> list[tuple[str, float]]:
    """Every letter that means itself, with the product of the emphases around it."""
    letters: list[tuple[str, float]] = []
    opened: list[tuple[str, int]] = []  # bracket, and how many letters stood before it
    for found in _TOKEN.finditer(text):
        closing = ")" if found["factor"] else found["close"]
        if found["open"]:
            opened.append((found["open"], len(letters)))
        elif closing and (start := _matching(opened, closing)) is not None:
            letters[start:] = _emphasised(letters[start:], _factor(found["factor"], closing))
        else:
            letters += [(letter, 1.0) for letter in found["escaped"] or found[0]]
    for bracket, start in opened:  # left open, it reaches to the end, as in the WebUI
        letters[start:] = _emphasised(letters[start:], EMPHASIS if bracket == "(" else 1 / EMPHASIS)
    return letters


def _matching(opened: list[tuple[str, int]], closing: str) -> int | None:
    """Where the bracket that `closing` closes stood; it and the ones left open inside it are done with."""
    for at in range(len(opened) - 1, -1, -1):
        if opened[at][0] == _OPENED_BY[closing]:
            start = opened[at][1]
            del opened[at:]
            return start
    return None


def _factor(written: str | None, closing: str) -> float:
    if written:
        return float(written)
    return EMPHASIS if closing == ")" else 1 / EMPHASIS


def _emphasised(letters: list[tuple[str, float]], factor: float) -> list[tuple[str, float]]:
    return [(letter, min(max(weight * factor, 0.0), MAX_WEIGHT)) for letter, weight in letters]
