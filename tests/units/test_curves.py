"""Curves: linear between their points, level outside them, and refused where they say nothing clear."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.units.curves import NAMED, Curve, CurveField
from lib_instantstyle.units.errors import UnitError

SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8, unique=True).map(sorted)


@given(SHARES, st.data(), st.floats(0, 1))
def test_points_are_read_as_numpy_interpolates(shares: list[float], data: st.DataObject, progress: float) -> None:
    factors = data.draw(st.lists(st.floats(-3, 3), min_size=len(shares), max_size=len(shares)))
    curve = CurveField().parse([list(point) for point in zip(shares, factors)])
    assert math.isclose(curve.at(progress), float(np.interp(progress, shares, factors)), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("name", NAMED)
def test_names_begin_and_end_where_they_say(name: str) -> None:
    ends = {"constant": (1, 1), "fade_out": (1, 0), "ease_out": (1, 0), "fade_in_out": (0, 0)}.get(name, (0, 1))
    curve = CurveField().parse(name)
    assert (curve.at(0.0), curve.at(1.0)) == ends
    assert all(0 <= curve.at(t / 10) <= 1 for t in range(11))


def test_easing_is_slow_at_first() -> None:
    assert Curve("ease_in").at(0.25) < Curve("fade_in").at(0.25)
    assert Curve("ease_out").at(0.25) > Curve("fade_out").at(0.25)
    assert Curve("fade_in_out").at(0.5) == 1


@pytest.mark.parametrize("name", NAMED)
def test_a_curve_is_read_back_from_what_it_writes(name: str) -> None:
    assert CurveField().parse(Curve(name).value()) == Curve(name)
    points = CurveField().parse([[0, 0.5], [1, 2]])
    assert CurveField().parse(points.value()) == points


WRONG = ["", "fast", [], [[0.5]], [[0, 1, 2]], ["01"], [[0.5, 1], [0.5, 2]], [[0.6, 1], [0.5, 1]], [[-0.1, 1]]]
WORSE = [[[0, 4]], [[0, math.nan]], [[0, True]], [[0, "1"]], 3, None, {}, [[0, 1]] * 65]


@pytest.mark.parametrize("value", WRONG + WORSE, ids=repr)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(UnitError):
        CurveField().parse(value)
