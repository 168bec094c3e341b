"""Style from a reference's own self-attention: by the book in every layout of rows, without any adapter."""

from __future__ import annotations

from typing import Any

import pytest
from live_case import seen_in
from live_kind import kind
from live_webui import SETTINGS
from live_world import as_base64, picture
from oracle_references import looking_at

pytestmark = pytest.mark.skipif(kind().is_fork, reason="refused there, with the reason")

PICTURE = picture(0, (96, 64))
STEPS = SETTINGS["steps"]
LONG = "a cat, " * 30
LAYOUTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "one call": ({}, ("cu",)),
    "a batch": ({"batch_size": 2}, ("ccuu",)),
    "a call for each half": ({"options": {"batch_cond_uncond": False}}, ("c u",)),
    "a long prompt": ({"prompt": LONG, "options": {"pad_cond_uncond": False}}, ("c u",)),
    "no guidance": ({"cfg_scale": 1}, ("cu",)),
}


def unit(method: str, **fields: Any) -> dict[str, Any]:
    return {"method": method, "image": as_base64(PICTURE), **fields}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", ["swapped", "shared"])
def test_it_is_the_formula_and_leaves_nothing(webui, method, layout):
    settings, rows = LAYOUTS[layout]
    plain = webui.txt2img(**settings)
    styled = webui.txt2img(unit(method), **settings)
    assert styled.status == 200, styled.answer
    assert webui.txt2img(**settings).same_as(plain)
    assert webui.txt2img(unit(method, weight=0), **settings).same_as(plain)
    with looking_at(PICTURE, method, rows, STEPS):
        expected = webui.txt2img(**settings)
    seen_in(plain, styled, expected)
    assert not webui.hooks()


def test_half_the_weight_is_half_the_way_in_each_layer(webui):
    plain, styled = webui.txt2img(), webui.txt2img(unit("swapped", weight=0.5))
    with looking_at(PICTURE, "swapped", ("cu",), STEPS, 0.5):
        seen_in(plain, styled, webui.txt2img())


def test_in_img2img(webui):
    """Two of three steps, as img2img counts them."""
    settings = {"steps": 3, "denoising_strength": 0.5}
    plain, styled = webui.img2img(**settings), webui.img2img(unit("swapped"), **settings)
    assert styled.status == 200, styled.answer
    assert not styled.same_as(plain)
    assert webui.img2img(**settings).same_as(plain)


def test_in_a_hires_job_each_pass_has_a_latent_of_its_size(webui):
    settings = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
    plain, styled = webui.txt2img(**settings), webui.txt2img(unit("swapped"), **settings)
    assert styled.status == 200, styled.answer
    assert not any(own.same_as(other) for own, other in zip(styled.passes, plain.passes))
    assert webui.txt2img(**settings).same_as(plain)


def test_a_picture_says_all_about_it(webui):
    infotext = webui.txt2img(unit("swapped", leak_guard=True)).infotext
    assert "method: swapped, preset: style, weight: 1.0, leak_guard: true" in infotext


@pytest.mark.parametrize(
    ("fields", "field"), [({"adapter": "tiny-base"}, "adapter"), ({"content_prompt": "a cat"}, "content_prompt")]
)
def test_what_means_nothing_is_refused(webui, fields, field):
    job = webui.txt2img(unit("swapped", **fields))
    assert (job.status, job.answer["detail"]["field"]) == (422, field)
