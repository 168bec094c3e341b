"""Text written to break its reader: infotexts, prompts, payloads. An answer or a refusal, and little work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.reference.analysis_json import read_request
from lib_instantstyle.units.errors import InstantStyleError, UnitError
from lib_instantstyle.units.fields import MAX_ADDRESSES, MAX_TEXT
from lib_instantstyle.units.infotext import MAX_LINE, from_infotext, to_infotext, units_in
from lib_instantstyle.units.phrases import MAX_PROMPT, parse_phrases, plain_prompt
from lib_instantstyle.units.unit import DEFAULTS, FIELDS, PICTURE_FIELDS, StyleUnit
from lib_instantstyle.webui.arguments import PANEL_VALUES, requested_units

from ..refusals import refusal
from .test_hostile_units import JSON
from .test_infotext import units

ENDLESS_NUMBER = 10**5000  # more digits than Python writes


def endless_list() -> list[Any]:
    outer = inner = []  # type: ignore[var-annotated]
    for _ in range(50_000):
        inner.append([])
        inner = inner[0]
    return outer


UNQUOTABLE = [ENDLESS_NUMBER, -ENDLESS_NUMBER, endless_list(), {"a": endless_list()}]


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", UNQUOTABLE, ids=range(4))
def test_what_cannot_even_be_quoted_is_refused_by_its_field(name: str, value: object) -> None:
    refused = refusal(lambda: StyleUnit.from_dict({"image": "abc", name: value}))
    assert isinstance(refused, UnitError)
    assert refused.field == name
    assert len(refused.message) < 400


@pytest.mark.parametrize("text", ["\ud800", "a cat\udfff", "\udcff" * 3])
@pytest.mark.parametrize("name", ["adapter", "content_prompt"])
def test_text_that_no_picture_can_hold_is_refused(name: str, text: str) -> None:
    """JSON may hold half a letter, UTF-8 may not: the picture would be lost when its text is written."""
    refused = refusal(lambda: StyleUnit.from_dict({"image": "abc", name: text}))
    assert refused is not None
    assert (refused.field, str(refused).isascii()) == (name, True)


@pytest.mark.parametrize(
    "data",
    [
        {"x" * 10_000_000: 1},
        {"image": "abc", "preset": "x" * 10_000_000},
        {"image": "abc", "content_prompt": "x" * 10_000_000},
        {"image": "abc", "preset": "custom", "blocks": {"x" * 10_000_000: 9}},
        {"image": "abc", "preset": "custom", "blocks": {str(number): 1 for number in range(MAX_ADDRESSES + 1)}},
        ["x" * 10_000_000],
    ],
    ids=["a name", "a choice", "a text", "an address", "addresses", "no unit"],
)
def test_ten_megabytes_are_refused_in_a_few_words(data: object) -> None:
    refused = refusal(lambda: StyleUnit.from_dict(data))
    assert isinstance(refused, UnitError)
    assert len(json.dumps(refused.as_json())) < 700


@given(units)
def test_every_valid_unit_survives_json(unit: StyleUnit) -> None:
    sent = json.loads(json.dumps(unit.to_dict()))
    if refused := refusal(lambda: StyleUnit.from_dict(sent)):
        assert refusal(unit.check) is not None  # its fields contradict each other
        assert refused.field in FIELDS
    else:
        assert StyleUnit.from_dict(sent) == unit


@given(st.dictionaries(st.sampled_from([*FIELDS, "words"]) | st.text(max_size=8), JSON, max_size=6) | JSON)
def test_any_json_is_an_analysis_or_refused(body: object) -> None:
    if refused := refusal(lambda: read_request(body)):
        assert isinstance(refused, UnitError)
        assert refused.field is not None or not isinstance(body, dict)
    else:
        unit, count = read_request(body)
        assert isinstance(unit, StyleUnit)
        assert 0 <= count <= 100


NO_COUNTS = [ENDLESS_NUMBER, True, 1.5, "24", -1, 101, [1], float("nan"), endless_list()]


@pytest.mark.parametrize("words", NO_COUNTS, ids=range(9))
def test_a_number_of_words_that_is_none_is_refused(words: object) -> None:
    refused = refusal(lambda: read_request({"image": "abc", "words": words}))
    assert refused is not None
    assert refused.field == "words"


SLOTS = ["no unit"] * 4  # three units and one too many
TAB = {**DEFAULTS, **dict.fromkeys({"more_pictures", *PICTURE_FIELDS}), "image": "abc"}
TAB |= {
    "blocks": "",
    "layout_curve": "",
    "image_weights": "",
    "content_scale": 0.5,
    "layout_weight": 1,
    "push_weight": 1,
}


def panel(**values: object) -> list[object]:
    """The script's arguments with some of the first tab's controls at these values."""
    tabs = [{**TAB, **values}, *[{**TAB, "enabled": False}] * 2]
    return [*SLOTS, True, *(tab[name] for tab in tabs for name in PANEL_VALUES)]


@given(st.sampled_from(PANEL_VALUES), JSON)
def test_a_panel_filled_with_any_json_is_units_or_refused(place: str, value: object) -> None:
    """Clients may fill the panel's controls by position."""
    refused = refusal(lambda: requested_units(panel(**{place: value})))
    assert refused is None or isinstance(refused, UnitError)


HOSTILE_BLOCKS = ["{" * 100_000, "[" * 100_000, '{"a":' * 100_000, "a: 1\n" * 100_000, ":::", "a: 1e999"]


@pytest.mark.parametrize("blocks", HOSTILE_BLOCKS, ids=range(6))
def test_blocks_written_to_break_the_reader_are_refused(blocks: str) -> None:
    refused = refusal(lambda: requested_units(panel(preset="custom", blocks=blocks)))
    assert refused is not None
    assert (refused.field, refused.unit) == ("blocks", 1)
    assert len(refused.message) < 400


MARKS = (": ", ":", ", ", ",", '"', '\\"', "\\", "{", "}", "[", "]", "{}", "[[]]", '"\\', "\n", "\u2028", "\x00", "é")
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e308", "1e309", "-1e999", "9" * 400, "null", "true", "\\ud800", "\\u0000")
PIECES = st.sampled_from([*FIELDS, "preset", *MARKS, *NUMBERS])


@given(st.lists(PIECES, max_size=40).map("".join))
def test_pieces_of_infotexts_in_any_order_give_valid_values_or_none(text: str) -> None:
    for name, value in from_infotext(text).items():
        FIELDS[name].kind.parse(value)
    for fields in units_in({"InstantStyle 1": text, text: "weight: 1", "InstantStyle ²": text}).values():
        assert fields.keys() <= FIELDS.keys()


HOSTILE_LINES = ["weight: 1, ", 'content_prompt: "', "a", "a:", ": ", '\\"', '"', "{", '{"a":', "[", "[1,", " ", "1"]


def steps(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs."""
    count = 0

    def trace(*_: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    kept = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(kept)
    return count


@pytest.mark.parametrize("pattern", HOSTILE_LINES)
@pytest.mark.parametrize("before", ["", 'weight: 1, content_prompt: "', "blocks: ", "preset: "])
def test_reading_an_infotext_takes_as_many_steps_as_it_has_letters(pattern: str, before: str) -> None:
    short, long = (before + pattern * (size // len(pattern)) for size in (1000, 4000))
    assert steps(lambda: from_infotext(long)) <= 5 * steps(lambda: from_infotext(short)) + 1000


@pytest.mark.parametrize("pattern", HOSTILE_LINES)
def test_an_infotext_of_ten_megabytes_is_not_read(pattern: str) -> None:
    assert from_infotext("weight: 1, " + pattern * (10_000_000 // len(pattern))) == {}


def test_the_longest_unit_is_read() -> None:
    worst = "\x00" * MAX_TEXT  # six letters each, once written
    pictures = ("0" * 32,) * 32
    scales = tuple(
        (f"up_blocks.0.attentions.1.transformer_blocks.{number}.attn2", 0.1234567890123) for number in range(70)
    )
    unit = StyleUnit(
        image=pictures, adapter=worst, preset="custom", blocks=scales, content_prompt=worst, content_image=pictures
    )
    line = to_infotext(unit)
    assert len(line) < MAX_LINE
    assert from_infotext(line)["content_prompt"] == worst


BRACKETS = ("(", "[", ")", "((a", "[a:b:", "[a|", "<a:", "(a:1.1)", "[[a]:1]")
HOSTILE_PROMPTS = [*BRACKETS, ":1", "1", " ", "\\", "AND ", ": 1", ","]


@pytest.mark.parametrize("pattern", HOSTILE_PROMPTS)
def test_of_an_endless_prompt_the_beginning_is_read(pattern: str) -> None:
    text = pattern * (1_000_000 // len(pattern))
    assert plain_prompt(text) == plain_prompt(text[:MAX_PROMPT])
    assert parse_phrases(text) == parse_phrases(text[:MAX_PROMPT])


@given(st.text("()[]<>:|,.\\ 1aAND\n", max_size=120))
def test_prompts_of_brackets_are_read_without_an_error(text: str) -> None:
    plain_prompt(text)
    assert all(0 < phrase.weight <= 2 for phrase in parse_phrases(text))


@given(st.text(min_size=1, max_size=30))
def test_every_refusal_can_be_shown_whatever_it_is_about(text: str) -> None:
    error = InstantStyleError(text, field=text)
    assert str(error)
    json.dumps(error.as_json())
