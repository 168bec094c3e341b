"""What stands in the place of something a job needs: whatever touches it ends the job with the sentence alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lib_instantstyle.units.errors import UnitError

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111

ERROR = UnitError("must be a number.", "weight", 2)
TOUCHES: dict[str, Callable[[Any], Any]] = {
    "called": lambda refusal: refusal(1, x=2),
    "looked into": lambda refusal: refusal.shape,
    "taken apart": lambda refusal: refusal[:, 0],
    "gone through": lambda refusal: list(refusal),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_whoever_touches_a_refusal_hears_why(web: A1111, touch: Callable[[Any], Any]) -> None:
    refusals = web.library("refusals")
    with pytest.raises(refusals.InstantStyleRefused) as caught:
        touch(refusals.Refusal(ERROR))
    assert str(caught.value) == str(ERROR)
    assert (caught.value.status_code, caught.value.detail) == (422, ERROR.as_json())
