"""A job that is not styled is what it would be if the extension were not there, whatever came before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from unittest import mock

import pytest
from live_absent import extension_absent
from live_kind import kind
from live_world import as_base64, picture

UNIT = {"image": as_base64(picture(0))}
SETTINGS = {
    "txt2img": {},
    "batch": {"batch_size": 2, "prompt": "a cat AND a dog"},
    "hires": {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, **kind().hires},
}
IDLE = {
    "empty args": [],
    "weight 0": [{**UNIT, "weight": 0}],
    "weight 0, all blocks": [{**UNIT, "weight": 0, "preset": "original"}],
    "custom scales 0": [{**UNIT, "preset": "custom", "blocks": {"up_blocks": 0}}],
    "disabled": [{**UNIT, "enabled": False}],
    "disabled and empty": [{"enabled": False}, {"enabled": False, "preset": "custom"}],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_extension_that_is_off_is_not_there(webui, name):
    with extension_absent():
        absent = webui.txt2img(**SETTINGS[name])
    assert webui.txt2img(**SETTINGS[name]).same_as(absent)


@pytest.mark.parametrize("name", IDLE)
def test_units_that_do_nothing_change_nothing(webui, by_the_book, name):
    job = webui.post("txt2img", (), {"scripts": {"InstantStyle": {"args": IDLE[name]}}})
    assert job.same_as(by_the_book.plain("txt2img", {}))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_styled_job_leaves_nothing_to_the_next(webui, by_the_book, name):
    plain = by_the_book.plain("txt2img", SETTINGS[name])
    styled = webui.txt2img({**UNIT, "preset": "original"}, **SETTINGS[name])
    assert not styled.same_as(plain)
    assert webui.txt2img(**SETTINGS[name]).same_as(plain)


def test_no_module_has_its_forward_replaced(webui):
    before = [name for name, module in webui.unet.named_modules() if "forward" in vars(module)]
    webui.txt2img({**UNIT, "preset": "original"})
    assert [name for name, module in webui.unet.named_modules() if "forward" in vars(module)] == before


def test_a_styled_job_is_repeatable(webui):
    """Also from what is kept of it in memory and on disk."""
    assert webui.txt2img(UNIT, seed=5).same_as(webui.txt2img(UNIT, seed=5))


def test_a_job_inside_a_styled_job_stays_plain_and_the_outer_one_styled(webui, by_the_book):
    """As ADetailer does it after each picture: wind up all scripts, run a job of its own, start the scripts again."""
    undisturbed = webui.txt2img(UNIT, n_iter=2)
    with nested_jobs():
        disturbed = webui.txt2img(UNIT, n_iter=2)
    plain = by_the_book.plain("txt2img", {}).passes[0]
    for got, wanted in zip(disturbed.passes, [undisturbed.passes[0], plain, undisturbed.passes[1], plain]):
        assert got.same_as(wanted)
    assert len(disturbed.passes) == 4


@contextmanager
def nested_jobs() -> Iterator[None]:
    """After each picture of an outer job, run a plain one of the same settings inside it."""
    from modules import processing, scripts

    runner = scripts.scripts_txt2img
    postprocess_image = runner.postprocess_image

    def postprocess_and_nest(p, pp, *args):
        postprocess_image(p, pp, *args)
        outer = copy(p)
        runner.postprocess(outer, processing.Processed(outer, [], p.seed))
        inner = processing.StableDiffusionProcessingTxt2Img(
            sd_model=p.sd_model,
            prompt=p.prompt,
            negative_prompt=p.negative_prompt,
            seed=1,
            steps=p.steps,
            width=p.width,
            height=p.height,
            sampler_name=p.sampler_name,
            cfg_scale=p.cfg_scale,
            do_not_save_samples=True,
            do_not_save_grid=True,
        )
        inner.scripts = scripts.ScriptRunner()  # an empty one: reForge makes no picture without
        processing.process_images(inner)
        runner.before_process(outer)
        runner.process(outer)

    with mock.patch.object(runner, "postprocess_image", postprocess_and_nest):
        yield
