"""The schema of a unit: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from lib_instantstyle.units.errors import UnitError
from lib_instantstyle.units.fields import MAX_TEXT
from lib_instantstyle.units.groups import CONTENT_METHODS
from lib_instantstyle.units.phrases import MAX_PHRASES
from lib_instantstyle.units.unit import DEFAULTS, FIELDS, StyleUnit, in_effect, parse_units, unit_schema

from ..tiny import picture

IMAGE = "aGVsbG8="
RANGES = {"weight": (-1, 3), "layout_weight": (-1, 3), "content_scale": (0, 2), "start": (0, 1), "end": (0, 1)}
NUMBERS = tuple(RANGES)


def refused(**data: Any) -> UnitError:
    with pytest.raises(UnitError) as caught:
        StyleUnit.from_dict({"image": IMAGE, **data})
    return caught.value


def test_picture_alone_makes_a_unit_of_defaults() -> None:
    unit = StyleUnit.from_dict({"image": IMAGE})
    assert unit == StyleUnit(image=(IMAGE,))
    assert (unit.preset, unit.weight, unit.adapter, unit.window.start, unit.window.end) == ("style", 1.0, "auto", 0, 1)


def test_unit_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        StyleUnit().weight = 2.0  # type: ignore[misc]


def test_to_dict_and_from_dict_are_inverse() -> None:
    unit = StyleUnit.from_dict(
        {
            "image": [IMAGE, IMAGE],
            "preset": "custom",
            "blocks": {"mid_block": 0.5, "up_blocks": -1},
            "weight": 2,
            "content_prompt": "a rabbit",
            "content_method": "auto",
            "content_renorm": True,
            "content_image": IMAGE,
            "negative_image": [IMAGE],
            "start": 0.25,
            "end": 0.5,
        }
    )
    assert StyleUnit.from_dict(unit.to_dict()) == unit
    assert unit.to_dict()["blocks"] == {"mid_block": 0.5, "up_blocks": -1.0}


def test_pil_picture_is_taken_alone_and_in_a_list() -> None:
    one = picture()
    assert StyleUnit.from_dict({"image": one}).image == (one,)
    assert StyleUnit.from_dict({"image": [one, IMAGE]}).image == (one, IMAGE)


@pytest.mark.parametrize("name", ["wieght", "Weight", "weights", ""])
def test_unknown_field_is_refused_with_all_fields_and_the_nearest(name: str) -> None:
    error = refused(**{name: 1.0})
    assert error.field == name
    assert all(field in error.message for field in FIELDS)
    assert ("Did you mean 'weight'" in error.message) == bool(name)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, pytest.param(10**400, id="beyond-float"), 3.01, -1.01]
)
def test_number_outside_its_range_or_no_number_is_refused(name: str, value: float) -> None:
    error = refused(**{name: value})
    low, high = RANGES[name]
    assert error.field == name
    assert f"{low} and {high}" in error.message


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, False, "1", [1], {}, b"1"])
def test_bool_string_and_list_are_no_numbers(name: str, value: object) -> None:
    error = refused(**{name: value})
    assert error.field == name
    assert "must be a number" in error.message


@pytest.mark.parametrize("name", NUMBERS)
def test_ends_of_the_range_are_included(name: str) -> None:
    for end in RANGES[name]:
        disabled = StyleUnit.from_dict({name: end, "enabled": False})
        assert getattr(disabled, name) == end
        assert type(getattr(disabled, name)) is float


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"image"}))
def test_null_stands_for_the_default_of_every_field(name: str) -> None:
    assert StyleUnit.from_dict({"image": IMAGE, name: None}) == StyleUnit(image=(IMAGE,))


@pytest.mark.parametrize("value", [0, 1, "true"])
def test_enabled_must_be_a_bool(value: object) -> None:
    assert refused(enabled=value).field == "enabled"


@pytest.mark.parametrize(("name", "good"), [("preset", "style"), ("content_method", "subtract")])
@pytest.mark.parametrize("value", ["Style", "", 3, ["style"]])
def test_choice_outside_the_list_is_refused_with_the_list(name: str, good: str, value: object) -> None:
    error = refused(**{name: value})
    assert (error.field, good in error.message) == (name, True)


@pytest.mark.parametrize("name", ["adapter", "content_prompt"])
def test_text_must_be_a_string_of_bounded_length(name: str) -> None:
    assert refused(**{name: 3}).field == name
    assert refused(**{name: "x" * (MAX_TEXT + 1)}).field == name
    assert StyleUnit.from_dict({"image": IMAGE, name: "x" * MAX_TEXT})


@pytest.mark.parametrize("value", [3, {"a": 1}, [1], [IMAGE, None], b"bytes", [[IMAGE]]])
def test_picture_of_another_type_is_refused(value: object) -> None:
    assert refused(image=value).field == "image"


@pytest.mark.parametrize("value", [None, []])
def test_enabled_unit_without_a_picture_is_refused(value: object) -> None:
    assert refused(image=value).field == "image"


NO_BLOCKS = [[], {}, "mid_block", 1.0, {11: 1.0}, {1.5: 1.0}, [1.0] * 10, {"mid_block": True}, {"mid_block": math.nan}]


@pytest.mark.parametrize("value", NO_BLOCKS)
def test_blocks_must_be_an_object_of_numbers(value: object) -> None:
    assert refused(preset="custom", blocks=value).field == "blocks"


def test_scale_out_of_range_names_its_address() -> None:
    assert "'mid_block'" in refused(preset="custom", blocks={"up_blocks": 1, "mid_block": 4}).message


def test_custom_and_blocks_need_each_other() -> None:
    assert refused(preset="custom").field == "blocks"
    assert refused(preset="style", blocks={"mid_block": 1}).field == "blocks"


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.5), (1.0, 1.0), (0.0, 0.0)])
def test_start_must_lie_before_end(start: float, end: float) -> None:
    assert refused(start=start, end=end).field == "start"


def test_disabled_unit_is_checked_for_names_types_and_ranges_only() -> None:
    loose = {"enabled": False, "preset": "custom", "start": 1.0, "end": 0.0}
    assert not StyleUnit.from_dict(loose).enabled
    for bad in ({"wieght": 1}, {"weight": "1"}, {"weight": 9}, {"preset": "no"}):
        with pytest.raises(UnitError):
            StyleUnit.from_dict({"enabled": False, **bad})


@pytest.mark.parametrize("value", [None, [], "unit", 3, [("image", IMAGE)]])
def test_unit_must_be_an_object(value: object) -> None:
    with pytest.raises(UnitError, match="must be a JSON object"):
        StyleUnit.from_dict(value)


def test_error_carries_the_units_number_counted_from_one() -> None:
    with pytest.raises(UnitError) as caught:
        parse_units([{"image": IMAGE}, {"image": IMAGE, "weight": 9}], limit=3)
    assert (caught.value.unit, caught.value.field) == (2, "weight")
    assert str(caught.value) == "Reference 2, Style weight: must be between -1 and 3, got 9."
    told = caught.value.as_json()
    assert (told["error"], told["unit"], told["field"]) == ("UnitError", 2, "weight")


def test_one_unit_more_than_allowed_is_refused() -> None:
    units = [{"image": IMAGE}] * 3
    assert len(parse_units(units, limit=3)) == 3
    with pytest.raises(UnitError, match="At most 2 references") as caught:
        parse_units(units, limit=2)
    assert caught.value.unit == 3


@pytest.mark.parametrize(
    ("prompt", "scale", "removes"), [("a rabbit", 0.5, True), ("a rabbit", 0.0, False), (" \n", 0.5, False)]
)
def test_content_is_removed_only_with_a_prompt_and_a_scale(prompt: str, scale: float, removes: bool) -> None:
    assert StyleUnit(content_prompt=prompt, content_scale=scale).removes_content is removes
    assert not StyleUnit(content_prompt=prompt, content_scale=scale, content_method="off").removes_content
    assert StyleUnit(content_prompt=prompt, content_scale=scale, content_image=(IMAGE,)).removes_content is bool(scale)


@pytest.mark.parametrize(("method", "strength"), [("subtract", 0.5), ("project", 0.5), ("auto", 1.0)])
def test_each_method_has_its_own_strength_unless_one_is_given(method: str, strength: float) -> None:
    assert StyleUnit(content_method=method).removal_strength == strength
    assert StyleUnit(content_method=method, content_scale=0.0).removal_strength == 0.0
    assert in_effect("content_scale", {**DEFAULTS, "content_method": method}) == strength
    assert in_effect("content_scale", {**DEFAULTS, "content_method": method, "content_scale": 0.2}) == 0.2


@pytest.mark.parametrize("method", CONTENT_METHODS)
def test_a_prompt_of_more_phrases_than_can_be_removed_is_refused_with_their_number(method: str) -> None:
    phrases = [f"thing {number}" for number in range(MAX_PHRASES + 1)]
    assert StyleUnit.from_dict({"image": IMAGE, "content_prompt": ",".join(phrases[1:]), "content_method": method})
    error = refused(content_prompt=",".join(phrases), content_method=method)
    assert error.field == "content_prompt"
    assert f"at most {MAX_PHRASES} phrases; this prompt has {MAX_PHRASES + 1}" in error.message


@pytest.mark.parametrize("name", ["content_image", "negative_image"])
def test_pictures_beside_the_reference_are_taken_like_it_and_may_be_missing(name: str) -> None:
    one = picture()
    assert getattr(StyleUnit.from_dict({"image": IMAGE, name: one}), name) == (one,)
    assert getattr(StyleUnit.from_dict({"image": IMAGE, name: []}), name) == ()
    assert getattr(StyleUnit.from_dict({"image": IMAGE, name: None}), name) == ()
    assert refused(**{name: 3}).field == name
    assert unit_schema()["properties"][name]["oneOf"][1]["minItems"] == 0


def test_one_picture_at_most_is_avoided() -> None:
    assert refused(mask=[IMAGE, IMAGE]).message == "may have at most one picture, got 2."
    assert len(StyleUnit.from_dict({"image": IMAGE, "content_image": [IMAGE, IMAGE]}).content_image) == 2


@pytest.mark.parametrize("value", [0, 1, "true"])
def test_renorm_must_be_a_bool(value: object) -> None:
    assert refused(content_renorm=value).field == "content_renorm"


def test_schema_describes_exactly_the_fields_with_their_defaults() -> None:
    schema = unit_schema()
    properties = schema["properties"]
    assert list(properties) == [one.name for one in dataclasses.fields(StyleUnit)] == list(FIELDS)
    assert [one["required"] for one in schema["oneOf"]] == [
        ["image"],
        ["method"],
        ["image", "method"],
        ["lora", "method"],
        ["image", "method"],
    ]
    assert schema["additionalProperties"] is False
    for name, described in properties.items():
        assert described["title"]
        assert described["description"].endswith(".")
        assert ("default" in described) == (name != "image")
        assert described.get("default") == (DEFAULTS[name] if name != "image" else None)


@pytest.mark.parametrize("name", NUMBERS)
def test_schema_ranges_are_those_that_are_checked(name: str) -> None:
    described = unit_schema()["properties"][name]
    assert (described["minimum"], described["maximum"]) == RANGES[name]


def test_defaults_pass_their_own_checks() -> None:
    given = {name: value for name, value in DEFAULTS.items() if name != "image"}
    assert StyleUnit.from_dict({"image": IMAGE, **given}) == StyleUnit(image=(IMAGE,))
