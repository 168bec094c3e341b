"""Hostile payloads: any JSON is a unit or is refused."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.units.errors import UnitError
from lib_instantstyle.units.fields import MAX_PICTURES
from lib_instantstyle.units.unit import FIELDS, StyleUnit, parse_units

from ..refusals import refusal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(10**500),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "wieght"]) | st.text(max_size=8), JSON, max_size=6) | JSON)
def test_any_json_is_a_unit_or_refused(data: object) -> None:
    if refused := refusal(lambda: StyleUnit.from_dict(data)):
        assert isinstance(refused, UnitError)
        assert refused.as_json()["message"]
    else:
        unit = StyleUnit.from_dict(data)
        assert StyleUnit.from_dict(unit.to_dict()) == unit


@given(st.lists(JSON, max_size=4))
def test_any_list_is_units_or_refused_with_a_number(values: list[object]) -> None:
    refused = refusal(lambda: parse_units(values, limit=3))
    assert refused is None or refused.unit in (1, 2, 3, 4)


def test_a_refusal_can_always_be_sent_as_json() -> None:
    """A lone surrogate, which JSON may hold and UTF-8 may not, comes back as something that can be written."""
    refused = refusal(lambda: StyleUnit.from_dict({"\ud800": 1}))
    assert refused is not None
    assert json.dumps(refused.as_json(), ensure_ascii=False).encode("utf-8")


def test_a_unit_of_endless_pictures_is_refused() -> None:
    refused = refusal(lambda: StyleUnit.from_dict({"image": ["abc"] * (MAX_PICTURES + 1)}))
    assert refused is not None
    assert (refused.field, refused.message) == ("image", "may have at most 32 pictures, got 33.")
