"""What `POST /instantstyle/analyze` is sent and answers, and the command `analyze` beside it: a unit's own fields in,
similarities out.
"""

from __future__ import annotations

from typing import Any

from ..units.errors import UnitError
from ..units.fields import shown
from ..units.unit import StyleUnit
from .analysis import Analyst, Progress

WORDS = "words"  # the one field beside those of a unit
DEFAULT_WORDS, MOST_WORDS = 24, 100


def read_request(body: object) -> tuple[StyleUnit, int]:
    """A checked unit, and how many words are wanted. Raises UnitError naming the field."""
    if not isinstance(body, dict):
        return StyleUnit.from_dict(body), 0  # says what is wrong with it
    fields = {name: value for name, value in body.items() if name != WORDS}
    return StyleUnit.from_dict(fields), _count(body.get(WORDS, DEFAULT_WORDS))


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_WORDS:
        raise UnitError(
            f"The number of words must be a whole number from 0 to {MOST_WORDS}, got {shown(value)}. "
            "With 0 the vocabulary is left alone.",
            WORDS,
        )
    return value


def answer(analyst: Analyst, unit: StyleUnit, count: int, progress: Progress | None = None) -> dict[str, Any]:
    """What the unit's reference shows, what is left of its content, and the names of what read it."""
    found = analyst.analyse(unit, count=count, progress=progress)
    return {
        "words": [{"text": word.text, "score": word.score} for word in found.words],
        "phrases": [{"text": leak.text, "before": leak.before, "after": leak.after} for leak in found.meter.phrases],
        "auto_scale": found.meter.auto_scale,
        **_parts(analyst, unit),
    }


def _parts(analyst: Analyst, unit: StyleUnit) -> dict[str, str | None]:
    parts = analyst.parts(unit)
    return {"adapter": parts.adapter, "encoder": parts.encoder, "text_tower": parts.text_tower}
