"""The matrix: beside the ControlNet extension, whatever it does in the job, in whatever order both are called."""

from __future__ import annotations

from functools import partial

import pytest
from live_absent import extension_absent, is_ours, scripts_sorted
from live_case import UNIT, Case
from live_controlnet import (
    ADAPTER,
    REFERENCE,
    adapters_taken_for_sdxl,
    broken,
    broken_while_sampling,
    controlnet,
    image_prompt,
)
from test_matrix_sampling import HIRES, INPAINT

pytestmark = pytest.mark.matrix("ControlNet v1.1.455")

PROMPT = image_prompt()
UNITS = {
    "reference": [REFERENCE],
    "T2I-Adapter on canny": [ADAPTER],
    "its IP-Adapter": [PROMPT],
    "reference and T2I-Adapter": [REFERENCE, ADAPTER],
    "IP-Adapter and T2I-Adapter": [PROMPT, ADAPTER],
    "all three": [REFERENCE, ADAPTER, PROMPT],
}
LONG = ", ".join(["a very long list of words"] * 15)
JOBS = {
    "txt2img": Case(),
    "img2img": Case(tab="img2img"),
    "inpaint": Case(INPAINT, tab="img2img"),
    "hires fix": Case(HIRES),
    "batch 2, count 2": Case({"batch_size": 2, "n_iter": 2}, rows=("ccuu",)),
    "long negative": Case({"negative_prompt": LONG}, rows=("c u",)),
}
KINDS = [
    *((units, job) for job in ("txt2img", "hires fix") for units in UNITS),
    *((units, "img2img") for units in ("reference", "T2I-Adapter on canny", "its IP-Adapter")),
    *((units, "inpaint") for units in ("reference", "T2I-Adapter on canny", "its IP-Adapter")),
    *((units, "batch 2, count 2") for units in ("reference", "its IP-Adapter", "all three")),
    *((units, "long negative") for units in ("reference", "IP-Adapter and T2I-Adapter")),
]


@pytest.fixture(autouse=True)
def _has_controlnet(world):
    if not world.has_controlnet:
        pytest.skip("the WebUI in WEBUI_DIR has no ControlNet extension")


def beside(units, job, inside=adapters_taken_for_sdxl):
    settings = {**job.settings, **controlnet(*units)}
    return Case(settings, job.rows, job.tab, inside, first_term_is_kept=PROMPT in units, matters=True)


@pytest.mark.parametrize(("units", "job"), KINDS, ids=map(", ".join, KINDS))
def test_case(examine, units, job):
    examine(beside(UNITS[units], JOBS[job]))


@pytest.mark.parametrize("units", ["reference", "its IP-Adapter", "all three"])
def test_called_in_either_order(webui, units):
    """Each order gives what the other gives, to the last bit."""
    settings = controlnet(*UNITS[units])
    with adapters_taken_for_sdxl():
        with scripts_sorted(lambda script: not is_ours(script)):
            first, plain = webui.txt2img(UNIT, **settings), webui.txt2img(**settings)
        with scripts_sorted(is_ours):
            assert webui.txt2img(UNIT, **settings).same_as(first)
            assert webui.txt2img(**settings).same_as(plain)


@pytest.mark.parametrize(
    ("units", "job"),
    [*((units, "txt2img") for units in UNITS), ("all three", "hires fix"), ("reference", "inpaint")],
    ids=str,
)
def test_its_result_is_untouched_when_we_are_off(webui, units, job):
    settings = {**JOBS[job].settings, **controlnet(*UNITS[units])}
    run = partial(webui.post, JOBS[job].tab, (), settings)
    with adapters_taken_for_sdxl():
        with extension_absent():
            alone = run()
        assert run().same_as(alone)


def test_a_unit_that_is_off(examine):
    examine(Case(controlnet({**REFERENCE, "enabled": False})))


@pytest.mark.parametrize("method", ["process", "before_process_batch", "postprocess_batch"])
@pytest.mark.parametrize("units", [(), (REFERENCE,)], ids=["no unit", "a unit"])
def test_broken_in(examine, method, units):
    """An exception in its hooks: the WebUI reports it and goes on, with the style."""
    examine(Case(controlnet(*units), inside=lambda: broken(method)))


def test_broken_in_its_wind_up(webui):
    """It stays in the UNet then, until its next job; ours and a plain one are what they were."""
    plain, styled = webui.txt2img(), webui.txt2img(UNIT)
    with broken("postprocess"):
        webui.txt2img(UNIT, **controlnet(REFERENCE))
    assert webui.txt2img(UNIT).same_as(styled)
    assert webui.txt2img().same_as(plain)


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_broken_while_sampling(webui, tab):
    """The job fails; the next ones are what they were."""
    plain, styled = webui.post(tab, (), {}), webui.post(tab, (UNIT,), {})
    with broken_while_sampling():
        failed = webui.post(tab, (UNIT,), controlnet(REFERENCE))
    assert failed.status == 500
    assert webui.post(tab, (UNIT,), {}).same_as(styled)
    assert webui.post(tab, (), {}).same_as(plain)
