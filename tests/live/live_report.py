"""The table that ends a run of live tests: every case of the matrix with its verdict, also those that were not run.

A test is in the table when it, or its module, is marked `matrix("where it belongs")`. It may record what was seen as a
property "seen", and a property "verdict" where passing means something else than "works".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import pytest

PLACE, SEEN, VERDICT, ROWS = "place", "seen", "verdict", "rows"  # names of the properties
HEADER = ("where", "case", "verdict", "seen")


@dataclass(frozen=True)
class Row:
    place: str
    case: str
    verdict: str
    seen: str = ""


def note_places(items: Iterable[pytest.Item]) -> None:
    """Write down on each test where in the table it belongs; reports of tests carry such notes along."""
    for item in items:
        marker = item.get_closest_marker("matrix")
        if marker is not None:
            item.user_properties.append((PLACE, marker.args[0]))


def name_of(nodeid: str) -> str:
    """`a_file.py::test_it_works[a case]` → "it works: a case"; of a parametrized `test_case`, its parameter alone."""
    test, _, case = nodeid.split("::")[-1].removesuffix("]").partition("[")
    sentence = test.removeprefix("test_").replace("_", " ")
    return case if sentence == "case" else f"{sentence}: {case}" if case else sentence


def rows_of(report: pytest.TestReport) -> Iterator[Row]:
    """What one finished test adds to the table."""
    noted = dict(report.user_properties)
    if PLACE not in noted:
        return
    if report.when == "call":
        yield from noted.get(ROWS, [])
    name, seen = name_of(report.nodeid), str(noted.get(SEEN, ""))
    if report.failed:
        yield Row(noted[PLACE], name, f"FAILS in {report.when}", _last_line(report))
    elif report.skipped:
        yield Row(noted[PLACE], name, "not run", _reason(report))
    elif report.when == "call":
        yield Row(noted[PLACE], name, str(noted.get(VERDICT, "works")), seen)


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The rows in Markdown, in the order of their places."""
    order: dict[str, list[Row]] = {}
    for row in rows:
        order.setdefault(row.place, []).append(row)
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    for place in order.values():
        for row in place:
            yield f"| {' | '.join(cell.replace('|', '/') for cell in astuple(row))} |"
    yield from _counted([row.verdict for place in order.values() for row in place])


def _counted(verdicts: list[str]) -> Iterator[str]:
    yield ""
    yield ", ".join(f"{verdicts.count(verdict)} × {verdict}" for verdict in dict.fromkeys(verdicts))


def _last_line(report: pytest.TestReport) -> str:
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr).splitlines()[0][:160]


def _reason(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return f"known not to work: {report.wasxfail}"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
