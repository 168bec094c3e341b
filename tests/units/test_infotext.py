"""A unit survives the way through a picture's infotext, and hostile infotexts survive nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.units.infotext import from_infotext, to_infotext, unit_key, units_in
from lib_instantstyle.units.unit import DEFAULTS, StyleUnit, checked, in_effect

HASH = "0123456789abcdef0123456789abcdef"
NUMBER_LIKE_HASH = "12345678901234567890123456789012"
EXPONENT_LIKE_HASH = "1e345678901234567890123456789012"

texts = st.text(max_size=60)
hashes = st.lists(st.sampled_from([HASH, NUMBER_LIKE_HASH, EXPONENT_LIKE_HASH]), max_size=1).map(tuple)
weights = st.floats(-1, 3)
addresses = st.text(min_size=1, max_size=20).filter(lambda text: not text.strip().isdecimal())  # those are numbers
scales = st.dictionaries(addresses, weights, min_size=1, max_size=3)
units = st.builds(
    StyleUnit,
    image=st.lists(st.sampled_from([HASH, NUMBER_LIKE_HASH, EXPONENT_LIKE_HASH]), min_size=1, max_size=3).map(tuple),
    adapter=texts,
    preset=st.sampled_from(["style", "layout", "style_and_layout", "original", "custom"]),
    weight=weights,
    layout_weight=st.none() | weights,
    blocks=st.none() | scales.map(lambda pairs: tuple(pairs.items())),
    content_prompt=texts,
    content_scale=st.none() | st.floats(0, 2),
    content_method=st.sampled_from(["subtract", "project", "auto", "off"]),
    content_renorm=st.booleans(),
    content_image=hashes,
    negative_image=hashes,
    start=st.floats(0, 1),
    end=st.floats(0, 1),
)


def test_a_lora_comes_back_without_a_word_of_pictures() -> None:
    unit = StyleUnit(method="lora", lora="ink, wet", weight=0.5, preset="original")
    line = to_infotext(unit)
    assert line == 'method: lora, lora: "ink, wet", preset: original, weight: 0.5'
    assert StyleUnit(**{name: checked(name, value) for name, value in from_infotext(line).items()}) == unit


@given(units)
def test_every_setting_comes_back(unit: StyleUnit) -> None:
    read = StyleUnit(**{name: checked(name, value) for name, value in from_infotext(to_infotext(unit)).items()})
    assert read.removal_strength == unit.removal_strength
    assert replace(read, content_scale=None) == replace(unit, content_scale=None)


@pytest.mark.parametrize(
    ("line", "strength"),
    [
        ("", 0.5),
        ("content_method: project", 0.5),
        ("content_method: auto", 0.5),
        ("content_method: auto, content_scale: 1.0", 1.0),
        ("content_method: auto, content_scale: 0.7", 0.7),
        ("content_scale: 1.0", 1.0),
    ],
)
def test_a_line_of_0_1_0_still_means_what_it_meant(line: str, strength: float) -> None:
    assert StyleUnit(**from_infotext(line)).removal_strength == strength
    assert in_effect("content_scale", {**DEFAULTS, **from_infotext(line)}) == strength


@pytest.mark.parametrize(("method", "written"), [("auto", "content_scale: 1.0"), ("subtract", "")])
def test_a_strength_that_was_not_given_is_written_unless_it_is_half(method: str, written: str) -> None:
    line = to_infotext(StyleUnit(image=(HASH,), content_method=method))
    assert re.findall(r"content_scale: [\d.]+", line) == [written][: bool(written)]


def webui_round_trip(value: str) -> str:
    """What the WebUI's writer and reader do to a value: quote it when it holds `,`, `:` or a newline, then unquote."""
    quoted = json.dumps(value, ensure_ascii=False) if re.search("[,:\n]", value) else value
    found = re.fullmatch(r'"(?:\\.|[^\\"])+"|[^,]*', quoted)
    assert found, "the WebUI's own pattern must take the value whole"
    return json.loads(quoted) if quoted.startswith('"') and quoted.endswith('"') else quoted


@given(units)
def test_the_line_survives_the_webuis_own_quoting(unit: StyleUnit) -> None:
    assert webui_round_trip(to_infotext(unit)) == to_infotext(unit)


def test_plain_words_stay_readable() -> None:
    unit = StyleUnit(image=(HASH,), adapter="ip-adapter_sdxl", content_prompt="a rabbit, a forest", weight=1.2)
    line = to_infotext(unit)
    assert line.startswith(f"image: {HASH}, adapter: ip-adapter_sdxl, preset: style, weight: 1.2")
    assert line.endswith('content_prompt: "a rabbit, a forest"')


def test_defaults_are_not_written() -> None:
    line = to_infotext(StyleUnit(image=(HASH,)))
    assert "content" not in line
    assert "negative" not in line


def test_pictures_beside_the_reference_are_written_by_their_hashes() -> None:
    line = to_infotext(StyleUnit(image=(HASH,), content_image=(NUMBER_LIKE_HASH, HASH), negative_image=(HASH,)))
    assert line.endswith(f'content_image: ["{NUMBER_LIKE_HASH}", "{HASH}"], negative_image: {HASH}')
    read = from_infotext(line)
    assert (read["content_image"], read["negative_image"]) == ([NUMBER_LIKE_HASH, HASH], [HASH])


@given(st.text(max_size=300))
def test_reading_never_raises_and_never_lets_an_invalid_value_through(text: str) -> None:
    for name, value in from_infotext(text).items():
        assert value is not None
        checked(name, value)


@pytest.mark.parametrize(
    "text",
    [
        "weight: 99",
        "weight: NaN",
        "weight: true",
        "preset: evil",
        "blocks: [1]",
        "unknown: 1",
        "content_method: null",
        "content_prompt: {",
        "{",
    ],
)
def test_bad_values_are_left_out(text: str) -> None:
    assert from_infotext(text) == {}


def test_deep_nesting_is_survived() -> None:
    assert from_infotext("blocks: " + "[" * 100_000) == {}


def test_units_are_found_by_their_numbers() -> None:
    params = {unit_key(2): "weight: 0.5", "InstantStyle version": "0.1.0", "InstantStyle x": "weight: 1", "Steps": "4"}
    assert units_in(params) == {2: {"weight": 0.5}}
