"""Curves: linear between their points, level outside them, and refused where they say nothing clear."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.units.curves import NAMED, Curve, CurveField, CurveValue, write_curve
from lib_instantstyle.units.errors import UnitError


def read(value: object) -> Curve:
    parsed = CurveField().parse(value)
    assert parsed is not None
    return Curve.of(parsed)


SHARES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8, unique=True).map(sorted)


@given(SHARES, st.data(), st.floats(0, 1))
def test_points_are_read_as_numpy_interpolates(shares: list[float], data: st.DataObject, progress: float) -> None:
    factors = data.draw(st.lists(st.floats(0.01, 3), min_size=len(shares), max_size=len(shares)))
    curve = read([list(point) for point in zip(shares, factors)])
    assert math.isclose(curve.at(progress), float(np.interp(progress, shares, factors)), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("name", NAMED)
def test_names_begin_and_end_where_they_say(name: str) -> None:
    ends = {"constant": (1, 1), "fade_out": (1, 0), "ease_out": (1, 0), "fade_in_out": (0, 0)}.get(name, (0, 1))
    curve = read(name)
    assert (curve.at(0.0), curve.at(1.0)) == ends
    assert all(0 <= curve.at(t / 10) <= 1 for t in range(11))


def test_easing_is_slow_at_first() -> None:
    assert Curve("ease_in").at(0.25) < Curve("fade_in").at(0.25)
    assert Curve("ease_out").at(0.25) > Curve("fade_out").at(0.25)
    assert Curve("fade_in_out").at(0.5) == 1


@pytest.mark.parametrize("value", [*NAMED, ((0.0, 0.5), (0.25, 1.0), (1.0, -2.0))], ids=str)
def test_a_curve_is_read_back_from_what_it_is_written_as(value: CurveValue) -> None:
    assert CurveField().parse(write_curve(value)) == value
    assert CurveField().parse(json.loads(json.dumps(value))) == value


def test_no_curve_is_a_curve_only_where_it_may_be() -> None:
    assert CurveField(optional=True).parse(None) is None
    assert write_curve(None) == ""


WRONG = ["", "fast", "0.5", "0: 1: 2", "0: x", 3, None, {}, [], [[0.5]], [[0, 1, 2]], ["01"], [[0, 1]] * 65]
WORSE = [[[0.5, 1], [0.5, 2]], [[0.6, 1], [0.5, 1]], [[-0.1, 1]], [[0, 4]], [[0, math.nan]], [[0, True]], [[0, "1"]]]
WORSE += [[[0, 0]], [[0, 0], [1, 0]]]


@pytest.mark.parametrize("value", WRONG + WORSE, ids=repr)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(UnitError):
        CurveField().parse(value)
