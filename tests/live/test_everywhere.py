"""Cases that are tried under every condition a WebUI can be started with; test_matrix_conditions.py runs them."""

from __future__ import annotations

import pytest
import test_matrix_prompts as prompts
import test_matrix_sampling as sampling
from live_case import UNIT, Case
from live_controlnet import ADAPTER, REFERENCE, adapters_taken_for_sdxl, controlnet, image_prompt

pytestmark = [pytest.mark.under_condition, pytest.mark.matrix("conditions")]

PROMPT = image_prompt()
CASES = {
    "batch 2": Case({"batch_size": 2}, rows=("ccuu",)),
    "negative longer than the prompt": prompts.CASES["negative longer than the prompt"],
    "hires fix": sampling.CASES["hires fix, pixels"],
    "inpaint, only masked": sampling.CASES["inpaint, only masked"],
    "refiner": Case({"refiner_checkpoint": "tiny-other", "refiner_switch_at": 0.5}),
}
BESIDE = {
    "reference": Case(controlnet(REFERENCE)),
    "T2I-Adapter on canny": Case(controlnet(ADAPTER)),
    "its IP-Adapter and reference, hires fix": Case(
        {**sampling.HIRES, **controlnet(PROMPT, REFERENCE)}, inside=adapters_taken_for_sdxl, first_term_is_kept=True
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(examine, name):
    examine(CASES[name])


@pytest.fixture
def _controlnet(world, webui):
    from live_controlnet import controlnet_scripts

    if not (world.has_controlnet and controlnet_scripts()):
        pytest.skip("there is no ControlNet here")


@pytest.mark.usefixtures("_controlnet")
@pytest.mark.parametrize("name", BESIDE)
def test_controlnet(examine, name):
    examine(BESIDE[name])


@pytest.mark.usefixtures("_controlnet")
def test_controlnets_leftovers_are_survived(webui, examine):
    """After a hires job with its IP-Adapter it keeps marked conditioning for the next one, with --lowvram at least.

    The mark is one more token, of 1024s, which nobody takes out then. In such a context a weight that is one step of
    float32 larger moves the result by 2e-4 of its deviation; a step of float16, by several deviations.
    """
    with adapters_taken_for_sdxl():
        webui.txt2img(UNIT, **sampling.HIRES, **controlnet(PROMPT))
    examine(Case(sampling.HIRES, magnifies_rounding=True))
