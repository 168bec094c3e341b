"""The table that ends live tests: each case once, with its verdict."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from .live.live_report import PLACE, ROWS, Row, rows_of

CHILD = Row("a condition", "its case", "works", "style 1")


def reports(**of_the_call: Any) -> list[Any]:
    """What pytest reports of one test; what the test noted is on the report of its teardown, too."""
    usual = {"failed": False, "skipped": False, "nodeid": "test_x.py::test_case[its name]"}
    before = [(PLACE, "here")]
    after = [*before, (ROWS, [CHILD])]
    return [
        SimpleNamespace(**usual, when="setup", user_properties=before),
        SimpleNamespace(**{**usual, **of_the_call}, when="call", user_properties=after),
        SimpleNamespace(**usual, when="teardown", user_properties=after),
    ]


@pytest.mark.parametrize(
    ("of_the_call", "verdict"),
    [
        ({}, "works"),
        ({"failed": True, "longrepr": "it broke"}, "FAILS in call"),
        ({"skipped": True, "longrepr": ("", 1, "Skipped: no GPU")}, "not run"),
    ],
)
def test_every_case_is_told_once(of_the_call: dict[str, Any], verdict: str) -> None:
    rows = [row for report in reports(**of_the_call) for row in rows_of(report)]
    assert [(row.place, row.case, row.verdict) for row in rows] == [
        ("a condition", "its case", "works"),
        ("here", "its name", verdict),
    ]
