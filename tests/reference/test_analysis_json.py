"""Requests to analyse are checked by a unit's own schema, and answered in JSON."""

from __future__ import annotations

import json

import pytest

from lib_instantstyle.reference.analysis import Analyst, Result
from lib_instantstyle.reference.analysis_json import as_json, read_request
from lib_instantstyle.units.errors import InstantStyleError, UnitError

from ..tiny import TinyHost, encoded, picture

IMAGE = encoded(picture())
UNIT = {"image": IMAGE, "adapter": "base", "content_prompt": "a rabbit, snow", "content_method": "project"}


def asked(host: TinyHost, **body: object) -> dict[str, object]:
    unit, count = read_request(body)
    return as_json(Analyst(host).analyse(unit, count=count))


def test_answer_is_json_with_words_phrases_scale_and_names(host: TinyHost) -> None:
    found = asked(host, **UNIT, words=3)
    assert json.loads(json.dumps(found)) == found
    assert list(found) == ["words", "phrases", "auto_scale", "adapter", "encoder", "text_tower"]
    assert [set(word) for word in found["words"]] == [{"text", "score"}] * 3
    assert [phrase["text"] for phrase in found["phrases"]] == ["a rabbit", "snow"]
    assert all(set(phrase) == {"text", "before", "after"} for phrase in found["phrases"])
    assert isinstance(found["auto_scale"], float)
    assert (found["adapter"], found["encoder"], found["text_tower"]) == ("base", "model", "checkpoint")


def test_without_content_there_is_no_scale_and_by_default_there_are_24_words(host: TinyHost) -> None:
    found = asked(host, image=IMAGE)
    assert (len(found["words"]), found["phrases"], found["auto_scale"]) == (24, [], None)


def test_null_asks_for_as_many_words_as_nothing_does() -> None:
    assert read_request({**UNIT, "words": None})[1] == 24


def test_no_words_leave_the_vocabulary_alone(host: TinyHost) -> None:
    assert asked(host, image=IMAGE, words=0)["words"] == []
    assert host.text_encodings == 0


def test_pictures_alone_need_no_text_tower(host: TinyHost) -> None:
    without = TinyHost(host.live_unet, host.models, host.cache, text_width=None)
    found = asked(without, image=IMAGE, content_image=encoded(picture(1)), words=0)
    assert [phrase["text"] for phrase in found["phrases"]] == ["picture 1"]
    assert found["text_tower"] is None


def test_every_field_of_a_unit_is_accepted() -> None:
    unit, count = read_request({**UNIT, "weight": 0.5, "preset": "layout", "start": 0.2, "content_renorm": True})
    assert (unit.weight, unit.preset, unit.start, unit.content_renorm, count) == (0.5, "layout", 0.2, True, 24)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (None, None),
        ([UNIT], None),
        ("hello", None),
        ({}, "image"),
        ({**UNIT, "weigth": 1}, "weigth"),
        ({**UNIT, "content_scale": 3}, "content_scale"),
        ({**UNIT, "content_method": "erase"}, "content_method"),
        ({**UNIT, "words": -1}, "words"),
        ({**UNIT, "words": 101}, "words"),
        ({**UNIT, "words": 2.5}, "words"),
        ({**UNIT, "words": True}, "words"),
        ({**UNIT, "words": "10"}, "words"),
    ],
)
def test_bad_requests_are_refused_by_field(body: object, field: str | None) -> None:
    with pytest.raises(UnitError) as caught:
        read_request(body)
    assert caught.value.field == field


def test_picture_of_a_unit_that_is_off_is_asked_for_all_the_same(host: TinyHost) -> None:
    with pytest.raises(InstantStyleError) as caught:
        asked(host, enabled=False)
    assert caught.value.field == "image"


def test_results_are_described_with_two_digits() -> None:
    assert Result(0.712, 0.1249, 0.31).described == "style 0.71, content 0.12, prompt 0.31"
    assert Result(0.712, None, -0.05).described == "style 0.71, prompt -0.05"
