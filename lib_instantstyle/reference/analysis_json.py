"""What `POST /instantstyle/analyze` is sent and answers, and the command `analyze` beside it: a unit's own fields in,
similarities out.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..units.errors import UnitError
from ..units.fields import shown
from ..units.unit import StyleUnit
from .analysis import Analysis

WORDS = "words"  # the one field beside those of a unit
DEFAULT_WORDS, MOST_WORDS = 24, 100


def read_request(body: object) -> tuple[StyleUnit, int]:
    """A checked unit, and how many words are wanted. Raises UnitError naming the field."""
    if not isinstance(body, dict):
        return StyleUnit.from_dict(body), 0  # says what is wrong with it
    fields = {name: value for name, value in body.items() if name != WORDS}
    return StyleUnit.from_dict(fields), _count(body.get(WORDS))


def _count(value: object) -> int:
    if value is None:
        return DEFAULT_WORDS
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_WORDS:
        raise UnitError(
            f"must be a whole number from 0 to {MOST_WORDS}, got {shown(value)}. With 0 the vocabulary is not read.",
            WORDS,
        )
    return value


def as_json(found: Analysis) -> dict[str, Any]:
    """What the unit's reference shows, what is left of its content, and the names of what read it."""
    words, phrases = ([asdict(one) for one in many] for many in (found.words, found.meter.phrases))
    return {"words": words, "phrases": phrases, "auto_scale": found.meter.auto_scale, **asdict(found.parts)}
