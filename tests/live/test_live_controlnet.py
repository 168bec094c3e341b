"""Side by side with the ControlNet extension, in jobs it takes part in and in jobs it does not."""

from __future__ import annotations

import pytest
from live_world import as_base64, picture
from oracle import STYLE, Styling

PICTURE = picture(0)
UNIT = {"image": as_base64(PICTURE)}
STYLING = Styling((PICTURE,), {STYLE: 1.0})
REFERENCE = {
    "enabled": True,
    "module": "reference_only",  # needs no weights
    "model": "None",
    "image": as_base64(picture(3, (96, 64))),
    "processor_res": 64,
    "threshold_a": 0.5,
}
LONG = ", ".join(["a very long list of words"] * 15)


@pytest.fixture(autouse=True)
def _has_controlnet(world):
    if not world.has_controlnet:
        pytest.skip("the WebUI in WEBUI_DIR has no ControlNet extension")


def controlnet(*units):
    return {"scripts": {"ControlNet": {"args": list(units)}}}


@pytest.mark.parametrize(
    ("settings", "rows"),
    [({}, ["cu"]), ({"batch_size": 2}, ["ccuu"]), ({"negative_prompt": LONG}, ["c u"])],
    ids=["one picture", "batch", "long negative"],
)
def test_the_style_is_added_to_what_controlnet_makes(by_the_book, settings, rows):
    by_the_book.assert_equal([(UNIT, STYLING)], rows=rows, **settings, **controlnet(REFERENCE))


def test_both_take_part(webui, by_the_book):
    plain = by_the_book.plain("txt2img", {})
    styled, referring, both = (
        webui.txt2img(UNIT),
        webui.txt2img(**controlnet(REFERENCE)),
        webui.txt2img(UNIT, **controlnet(REFERENCE)),
    )
    jobs = [plain, styled, referring, both]
    assert not any(one.same_as(other) for number, one in enumerate(jobs) for other in jobs[:number])
    assert webui.txt2img().same_as(plain)


def test_a_controlnet_that_is_off_makes_no_difference(webui):
    off = webui.txt2img(UNIT, **controlnet({**REFERENCE, "enabled": False}))
    assert off.same_as(webui.txt2img(UNIT))


def test_a_refused_style_leaves_controlnet_as_it_was(webui, by_the_book):
    refused = webui.txt2img({**UNIT, "weight": 4}, **controlnet(REFERENCE))
    assert (refused.status, refused.passes) == (422, [])
    assert webui.txt2img().same_as(by_the_book.plain("txt2img", {}))
