"""What a call refuses, for tests that accept either."""

from __future__ import annotations

from collections.abc import Callable

from lib_instantstyle.units.errors import InstantStyleError


def refusal(call: Callable[[], object]) -> InstantStyleError | None:
    """The InstantStyleError that `call` raises, or None; anything else it raises is a failure."""
    try:
        call()
    except InstantStyleError as error:
        return error
    return None
