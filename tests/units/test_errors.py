"""How errors are told: those that were foreseen as they are, all others with their trace in the log."""

from __future__ import annotations

import logging

import pytest

from lib_instantstyle.units.errors import UnitError, explained


def test_a_foreseen_error_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    error = UnitError("weight must be a number.", "weight")
    assert explained(error) is error
    assert not caplog.records


def test_an_unforeseen_error_is_told_by_its_kind_and_logged_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    try:
        {}["missing"]
    except KeyError as caught:
        with caplog.at_level(logging.ERROR, logger="InstantStyle"):
            told = explained(caught)
    assert told.status_code == 500
    assert told.message == "InstantStyle failed: KeyError: 'missing'"
    assert caplog.records[0].exc_info[1].args == ("missing",)
