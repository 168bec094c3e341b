"""How errors are told: those that were foreseen as they are, all others with their trace in the log."""

from __future__ import annotations

import logging

import pytest

from lib_instantstyle.units import unit as schema
from lib_instantstyle.units.errors import UnexpectedError, UnitError, explained, placed


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


def test_people_read_the_references_number_and_the_label_programs_read_number_and_name() -> None:
    for name, spec in schema.FIELDS.items():
        error = UnitError("is wrong.", name, 2)
        assert str(error) == f"Reference 2, {spec.label}: is wrong."
        assert (error.as_json()["unit"], error.as_json()["field"]) == (2, name)
    assert str(UnitError("is wrong.", "words")) == "words: is wrong."
    assert str(UnitError("All is wrong.")) == "All is wrong."


def test_an_error_gets_the_place_that_it_does_not_know_and_keeps_what_it_knows() -> None:
    with pytest.raises(UnitError) as caught, placed(unit=3), placed(unit=1, field="blocks"):
        raise UnitError("is wrong.", "image") from KeyError("first")
    assert (caught.value.unit, caught.value.field) == (1, "image")
    assert isinstance(caught.value.__cause__, KeyError)


def test_other_errors_pass_a_place_by_unchanged() -> None:
    with pytest.raises(KeyError), placed(unit=3):
        raise KeyError("x")


def test_trouble_with_a_file_tells_no_path_of_this_machine() -> None:
    for error in (FileNotFoundError(2, "No such file or directory", "/home/alice/x"), KeyError("x"), OSError("gone")):
        assert "alice" not in UnexpectedError(error).message
        assert type(error).__name__ in UnexpectedError(error).message
    assert "gone" in UnexpectedError(OSError("gone")).message
