"""A payload that cannot be obeyed is answered with what is wrong and where, before anything is computed."""

from __future__ import annotations

import pytest
import torch
from live_kind import kind
from live_world import as_base64, picture

pytestmark = pytest.mark.matrix("refused payloads")

IMAGE = as_base64(picture(0))
UNIT = {"image": IMAGE}

# What is sent → the status, and the field that is named.
REFUSED = {
    "no object": ("hello", 422, None),
    "null": (None, 422, None),
    "a list": ([UNIT], 422, None),
    "a misspelt field": ({**UNIT, "weigth": 1}, 422, "weigth"),
    "a number as text": ({**UNIT, "weight": "1"}, 422, "weight"),
    "a switch as number": ({**UNIT, "enabled": 1}, 422, "enabled"),
    "too much weight": ({**UNIT, "weight": 3.1}, 422, "weight"),
    "not a number": ({**UNIT, "weight": float("nan")}, 422, "weight"),
    "an unknown preset": ({**UNIT, "preset": "styel"}, 422, "preset"),
    "no picture": ({}, 422, "image"),
    "no pictures": ({"image": []}, 422, "image"),
    "a picture that is none": ({"image": "aGVsbG8="}, 422, "image"),
    "a broken picture": ({"image": IMAGE[:2000]}, 422, "image"),
    "a path": ({"image": "/etc/hostname"}, 422, "image"),
    "a link": ({"image": "http://127.0.0.1/picture.png"}, 422, "image"),
    "an unknown adapter": ({**UNIT, "adapter": "nope"}, 404, "adapter"),
    "an adapter by path": ({**UNIT, "adapter": "../ControlNet/tiny-base"}, 404, "adapter"),
    "custom without blocks": ({**UNIT, "preset": "custom"}, 422, "blocks"),
    "blocks without custom": ({**UNIT, "blocks": {"up_blocks.0": 1}}, 422, "blocks"),
    "an unknown block": ({**UNIT, "preset": "custom", "blocks": {"up_blocks.9": 1}}, 422, "blocks"),
    "half a block's name": ({**UNIT, "preset": "custom", "blocks": {"up_block": 1}}, 422, "blocks"),
    "a block twice": (
        {**UNIT, "preset": "custom", "blocks": {"mid_block": 1, "middle_block": 0.5}},
        422,
        "blocks",
    ),
    "a scale out of range": ({**UNIT, "preset": "custom", "blocks": {"up_blocks.0": 9}}, 422, "blocks"),
    "an end before the start": ({**UNIT, "start": 0.6, "end": 0.5}, 422, "start"),
    "a window between two steps": ({**UNIT, "start": 0.1, "end": 0.2}, 422, "start"),
    "two masks": ({**UNIT, "mask": [IMAGE, IMAGE]}, 422, "mask"),
    "a bad value in a disabled unit": ({"enabled": False, "weight": "much"}, 422, "weight"),
}


def assert_refused(job, status, unit, field):
    assert job.status == status, job.answer
    assert {key: job.answer["detail"][key] for key in ("unit", "field")} == {"unit": unit, "field": field}
    assert job.answer["detail"]["message"]
    assert job.passes == []


@pytest.mark.parametrize("name", REFUSED)
def test_case(webui, record_property, name):
    """A bad unit is refused by name."""
    unit, status, field = REFUSED[name]
    assert_refused(job := webui.txt2img(unit), status, 1, field)
    record_property("verdict", "refused with message")
    record_property("seen", f"{status}: {job.answer['detail']['message']}"[:150])


def test_img2img_refuses_alike(webui):
    assert_refused(webui.img2img({**UNIT, "weight": 4}), 422, 1, "weight")


def test_the_unit_at_fault_is_told_by_its_number(webui):
    assert_refused(webui.txt2img(UNIT, {"enabled": False}, {**UNIT, "weight": 4}), 422, 3, "weight")


def test_a_unit_too_many_is_refused_rather_than_dropped(webui):
    assert_refused(webui.txt2img(*[UNIT] * 4), 422, 4, None)


def test_a_refused_job_leaves_nothing_to_the_next(webui, by_the_book):
    webui.txt2img(UNIT, {**UNIT, "weight": 4})
    assert webui.txt2img().same_as(by_the_book.plain("txt2img", {}))


@pytest.fixture
def another_unet(webui, monkeypatch):
    """The job before used an SD Unet as TensorRT's, and it is still on."""
    if kind().is_fork:
        pytest.skip("there are no other UNets")
    from modules import sd_unet

    option = type("Option", (), {"label": "TensorRT", "model_name": "all"})()
    unet = type("Unet", (), {"option": option, "deactivate": lambda self: None})()
    monkeypatch.setattr(sd_unet, "unet_options", [option])
    monkeypatch.setattr(sd_unet, "current_unet_option", option)
    monkeypatch.setattr(sd_unet, "current_unet", unet)


@pytest.mark.usefixtures("another_unet")
def test_another_unet_is_refused(webui):
    """TensorRT and its like replace the whole UNet: there are no layers left to style."""
    job = webui.txt2img(UNIT, override_settings={"sd_unet": "TensorRT"})
    assert_refused(job, 422, 1, None)
    assert "TensorRT" in job.answer["detail"]["message"]


@pytest.mark.usefixtures("another_unet")
def test_another_unet_that_this_job_does_without_is_no_reason_to_refuse(webui, by_the_book):
    """The WebUI takes it out after we were asked."""
    job = webui.txt2img(UNIT, override_settings={"sd_unet": "None"})
    assert job.status == 200, job.answer
    assert not job.same_as(by_the_book.plain("txt2img", {}))


def test_a_window_that_no_sampled_step_falls_into_is_told_as_such(webui):
    """Of six model calls that it counts, Heun makes five."""
    job = webui.txt2img({**UNIT, "start": 0.8}, sampler_name="Heun", steps=3)
    assert job.status == 500
    assert "None of the sampled steps was inside" in job.answer["detail"]["message"]


def test_a_style_that_never_reaches_the_unet_is_an_error(webui, monkeypatch):
    """As when another extension replaces the sampling."""
    from modules.sd_samplers_common import Sampler

    monkeypatch.setattr(Sampler, "launch_sampling", lambda *args: torch.zeros(1, 4, 8, 12))
    job = webui.txt2img(UNIT)
    assert job.status == 500
    assert job.answer["detail"]["error"] == "StyleNotAppliedError"
    assert webui.txt2img().status == 200


def test_a_sampling_replaced_in_the_second_picture_is_told_as_in_the_first(webui, monkeypatch):
    from modules.sd_samplers_common import Sampler

    sample, passes = Sampler.launch_sampling, iter(range(9))

    def sample_once(*args):
        return sample(*args) if next(passes) == 0 else torch.zeros(1, 4, 8, 12)

    monkeypatch.setattr(Sampler, "launch_sampling", sample_once)
    job = webui.txt2img(UNIT, n_iter=2)
    assert job.status == 500
    assert "another extension or script has replaced the sampling" in job.answer["detail"]["message"]
