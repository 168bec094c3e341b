"""The shipped words that a reference is compared with, and which of them a picture shows most."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor
from torch.nn.functional import normalize

FILE = Path(__file__).with_name("vocabulary.txt")
SAME = 0.9  # cosine of two words' embeddings above which the second says nothing new
LEAST = 0.1  # length of what sets a word apart, below which it counts for less


@cache
def vocabulary() -> tuple[str, ...]:
    """Plain nouns and scenes in the order of the file, each once."""
    return read_words(FILE.read_text("utf-8"))


def read_words(text: str) -> tuple[str, ...]:
    """The words of a list with lines `kind: word, word, …`; the kinds are for people, # begins a remark."""
    lines = [line.partition("#")[0] for line in text.splitlines()]
    words = [word.strip() for line in lines for word in line.rpartition(":")[2].split(",")]
    return tuple(dict.fromkeys(filter(None, words)))


def best_words(image_embeds: Tensor, word_embeds: Tensor, count: int) -> list[tuple[int, float]]:
    """Which words the pictures show most, best first: (row of the word, its plain cosine with the pictures).

    Some words lie near the middle of all texts and are therefore similar to every picture ("hubs": Radovanović et al.,
    JMLR 11, 2010; in CLIP they crowd out the words that say what is there). So words are ranked by what sets them
    apart: ⟨ê, a⟩/max(‖a‖, 0.1) with a = t̂ − ⟨t̂, m̂⟩m̂, where m is the mean of all t̂; averaged over the pictures. Taking
    m off instead would not do: of a hub, which has more of m̂ than others, just that would be left, and pictures have
    some of it too. The floor keeps words of which hardly anything is left from being ranked by rounding errors. A word
    whose embedding is nearly that of a better one (cosine above 0.9) is left out.

    image_embeds (n, width), word_embeds (words, width), both in one CLIP space.
    """
    directions = normalize(word_embeds.float(), dim=1)  # t̂
    middle = normalize(directions.mean(dim=0), dim=0)  # m̂
    apart = directions - (directions @ middle)[:, None] * middle
    shown = normalize(image_embeds.float(), dim=1).mean(dim=0)
    scores, ranks = directions @ shown, normalize(apart, dim=1, eps=LEAST) @ shown
    chosen: list[int] = []
    for word in ranks.argsort(descending=True, stable=True).tolist():
        if len(chosen) == count:
            break
        if not chosen or bool((directions[chosen] @ directions[word] <= SAME).all()):
            chosen.append(word)
    return [(word, scores[word].item()) for word in chosen]
