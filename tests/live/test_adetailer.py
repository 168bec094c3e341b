"""ADetailer, which runs a job inside the job for each thing it detects; test_matrix_conditions.py runs this.

Its detectors' weights are not needed: detection is replaced by one box, what ADetailer makes of it is its own.
"""

from __future__ import annotations

import json
from unittest import mock

import pytest
from live_case import UNIT
from live_watch import hooked_calls
from live_world import picture
from PIL import Image

pytestmark = [pytest.mark.under_condition, pytest.mark.matrix("neighbours")]

DETAIL = {"ad_model": "mediapipe_face_full", "ad_denoising_strength": 0.6, "ad_prompt": "a face"}
SWITCHES = [True, False]  # it is on; the first sampling is not left out
ON = {"scripts": {"ADetailer": {"args": [*SWITCHES, DETAIL]}}}
TWICE = {"scripts": {"ADetailer": {"args": [*SWITCHES, DETAIL, {**DETAIL, "ad_prompt": "a hand"}]}}}
BOX = (16, 8, 72, 48)
WITH_US = {"ad_script_names": "dynamic_prompting,instantstyle"}


@pytest.fixture(autouse=True)
def _one_box_is_detected(webui):
    from modules import scripts

    script = next(one for one in scripts.scripts_txt2img.alwayson_scripts if one.title() == "ADetailer")
    its_module = type(script).get_ad_model.__globals__
    mask = Image.new("L", (96, 64))
    mask.paste(255, BOX)
    found = its_module["PredictOutput"](
        bboxes=[list(BOX)], masks=[mask], confidences=[0.9], preview=picture(0, (96, 64))
    )
    with mock.patch.dict(its_module, mediapipe_predict=lambda *args, **kwargs: found):
        yield


# How often pictures are sampled, and how often ADetailer comes in between.
ORDERS = {"one": ({}, "oi"), "one after the other": ({"n_iter": 2}, "oioi"), "two at once": ({"batch_size": 2}, "oii")}


@pytest.mark.parametrize("name", ORDERS)
def test_its_jobs_are_plain_when_our_script_is_not_named(webui, name):
    """And the pictures they work on are what they are without ADetailer."""
    settings, order = ORDERS[name]
    alone = webui.txt2img(UNIT, **settings)
    with hooked_calls(webui) as hooked:
        job = webui.txt2img(UNIT, **settings, **ON)
    assert job.status == 200, job.answer
    assert len(job.passes) == len(order)
    assert hooked == [kind == "o" for kind, one in zip(order, job.passes) for _ in one.predictions]
    outer = [one for kind, one in zip(order, job.passes) if kind == "o"]
    assert all(one.same_as(other) for one, other in zip(outer, alone.passes))


@pytest.mark.parametrize("job", [ON, TWICE], ids=["one detail", "two details"])
@pytest.mark.parametrize("name", ORDERS)
def test_its_jobs_are_styled_when_our_script_is_named(webui, job, name):
    settings, _ = ORDERS[name]
    alone = webui.txt2img(UNIT, **settings)
    with hooked_calls(webui) as hooked:
        named = webui.txt2img(UNIT, **settings, **job, options=WITH_US)
    assert named.status == 200, named.answer
    assert len(named.passes) > len(alone.passes)
    assert all(hooked)
    assert all(any(one.same_as(other) for other in named.passes) for one in alone.passes)


@pytest.mark.parametrize("options", [{}, WITH_US], ids=["not named", "named"])
def test_a_plain_job_with_details_afterwards(webui, options):
    plain = webui.txt2img(**ON, options=options)
    webui.txt2img(UNIT, **ON, options=options)
    assert webui.txt2img(**ON, options=options).same_as(plain)


def test_the_outer_picture_is_measured(webui):
    """ADetailer has wound up our job by the time the picture is measured."""
    options = {"instantstyle_measure": True, **WITH_US}
    for settings, _ in ORDERS.values():
        job = webui.txt2img(UNIT, **ON, **settings, options=options)
        assert all("InstantStyle measured" in text for text in json.loads(job.answer["info"])["infotexts"])
