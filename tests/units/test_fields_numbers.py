"""Lists of numbers, as JSON has them and as people write them."""

from __future__ import annotations

import pytest

from lib_instantstyle.units.errors import UnitError
from lib_instantstyle.units.fields import Numbers, write_numbers

KIND = Numbers(0, 10, most=3)


@pytest.mark.parametrize(
    ("value", "read"),
    [([1, 0.5], (1.0, 0.5)), ("1, 0.5", (1.0, 0.5)), ("2", (2.0,)), ("", None), (None, None), ((0, 10), (0.0, 10.0))],
)
def test_numbers_are_read(value: object, read: object) -> None:
    assert KIND.parse(value) == read


@pytest.mark.parametrize("value", [[], [1] * 4, [11], [-1], "1, two", ",", 1, True, [True], [None], ["1"], {}, "nan"])
def test_what_is_no_list_of_numbers_is_refused(value: object) -> None:
    with pytest.raises(UnitError, match="must"):
        KIND.parse(value)


@pytest.mark.parametrize("numbers", [None, (1.0,), (0.5, 2.0, 0.25)])
def test_what_is_written_is_read_again(numbers: tuple[float, ...] | None) -> None:
    assert KIND.parse(write_numbers(numbers)) == numbers
