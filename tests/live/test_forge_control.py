"""The matrix in Forge and its kin: beside their own ControlNet and its IP-Adapter, which replaces whole attentions."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from live_case import UNIT, Case
from live_forge_control import canny, controlnet, image_prompt, tiny_image_prompts
from live_kind import kind
from test_matrix_sampling import INPAINT

pytestmark = pytest.mark.matrix("their own ControlNet")

UNITS = {
    "ControlNet on canny": lambda: [canny("tiny-controlnet")],
    "T2I-Adapter on canny": lambda: [canny("t2i-adapter_xl_canny_tiny")],
    "its IP-Adapter": lambda: [image_prompt()],
    "ControlNet and IP-Adapter": lambda: [canny("tiny-controlnet"), image_prompt()],
}
LONG = ", ".join(["a very long list of words"] * 15)
JOBS = {
    "txt2img": {},
    "hires fix": {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, **kind().hires},
    "batch 2, count 2": {"batch_size": 2, "n_iter": 2},
    "long negative": {"negative_prompt": LONG, "batch_size": 2},
    "AND": {"prompt": "a cat AND a dog", "batch_size": 2},
}
OTHER_TAB = {"img2img": {}, "inpaint": INPAINT}
KINDS = [
    *((units, "txt2img") for units in UNITS),
    *((units, job) for job in list(JOBS)[1:] for units in ("its IP-Adapter", "ControlNet and IP-Adapter")),
    *((units, job) for job in OTHER_TAB for units in ("ControlNet on canny", "its IP-Adapter")),
]


@pytest.fixture(autouse=True)
def _has_their_own():
    if not kind().has_backend:
        pytest.skip("these are Forge's and Forge Neo's")


def beside(units, job):
    prompts = tiny_image_prompts if "IP-Adapter" in units and "T2I" not in units else nullcontext
    tab, settings = ("img2img", OTHER_TAB[job]) if job in OTHER_TAB else ("txt2img", JOBS[job])
    return Case({**settings, **controlnet(*UNITS[units]())}, tab=tab, inside=prompts, matters=job == "txt2img")


@pytest.mark.parametrize(("units", "job"), KINDS, ids=[", ".join(one) for one in KINDS])
def test_case(webui, examine, units, job):
    examine(beside(units, job))


def test_neither_leaves_anything_to_the_other(webui):
    plain = webui.txt2img()
    with tiny_image_prompts():
        both = controlnet(*UNITS["ControlNet and IP-Adapter"]())
        alone, styled, again = webui.txt2img(**both), webui.txt2img(UNIT, **both), webui.txt2img(**both)
    assert not alone.same_as(plain)
    assert not styled.same_as(alone)
    assert again.same_as(alone)
    assert webui.txt2img().same_as(plain)


def test_a_refused_style_leaves_their_controlnet_as_it_was(webui):
    with tiny_image_prompts():
        both = controlnet(*UNITS["ControlNet and IP-Adapter"]())
        alone, refused = webui.txt2img(**both), webui.txt2img({**UNIT, "weight": 4}, **both)
        again = webui.txt2img(**both)
    assert (refused.status, refused.passes) == (422, [])
    assert again.same_as(alone)
