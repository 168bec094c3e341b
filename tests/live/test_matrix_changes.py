"""The matrix: models that change within a job and between jobs, and jobs that follow one another."""

from __future__ import annotations

import pytest
from live_case import PICTURE, UNIT, Case
from oracle import STYLE, Styling
from test_matrix_sampling import HIRES

pytestmark = pytest.mark.matrix("changes of model")

OTHER = {"override_settings": {"sd_model_checkpoint": "tiny-other"}}
KEPT = {"sd_checkpoints_limit": 2}  # both checkpoints stay in memory
CASES = {
    "refiner": Case({"refiner_checkpoint": "tiny-other", "refiner_switch_at": 0.5}, matters=True),
    "refiner, kept in memory": Case({"refiner_checkpoint": "tiny-other", "refiner_switch_at": 0.5, "options": KEPT}),
    "refiner, batch 2, count 2": Case(
        {"refiner_checkpoint": "tiny-other", "refiner_switch_at": 0.5, "batch_size": 2, "n_iter": 2}, rows=("ccuu",)
    ),
    "hires fix, own checkpoint": Case({**HIRES, "hr_checkpoint_name": "tiny-other"}),
    "hires fix, own checkpoint, kept in memory": Case({**HIRES, "hr_checkpoint_name": "tiny-other", "options": KEPT}),
    "another checkpoint": Case(OTHER, matters=True),
    "another VAE": Case({"override_settings": {"sd_vae": "tiny-vae.safetensors"}}, tab="img2img"),
    "another VAE, hires fix": Case(
        {**HIRES, "hr_upscaler": "Lanczos", "override_settings": {"sd_vae": "tiny-vae.safetensors"}}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(examine, name):
    examine(CASES[name])


@pytest.mark.parametrize("options", [{}, KEPT], ids=["loaded anew", "kept in memory"])
def test_checkpoint_changed_between_jobs(webui, options):
    """There and back: every job is what it was on the same checkpoint."""
    jobs = [((), {}), ((UNIT,), {}), ((UNIT,), OTHER), ((), OTHER)]
    first = [webui.txt2img(*units, **settings, options=options) for units, settings in jobs]
    again = [webui.txt2img(*units, **settings, options=options) for units, settings in jobs]
    assert all(job.status == 200 for job in first)
    assert all(one.same_as(other) for one, other in zip(first, again))
    assert not first[1].same_as(first[2])


def test_generate_forever(webui):
    """The button starts the same job again and again: each is the first."""
    first = webui.txt2img(UNIT)
    assert all(webui.txt2img(UNIT).same_as(first) for _ in range(3))


def test_a_refiner_of_another_family_ends_the_style_with_a_message(webui, by_the_book, caplog):
    """From the switch on nothing is styled; what came before is what the formula says."""
    plain = webui.txt2img()
    refiner = {"refiner_checkpoint": "tiny-short", "refiner_switch_at": 0.5, "steps": 4}
    until_the_switch = Styling((PICTURE,), {STYLE: 0.8}, steps=(range(2),))
    by_the_book.assert_equal([(UNIT, until_the_switch)], **refiner)
    assert "InstantStyle ended early in this picture" in caplog.text
    assert webui.txt2img().same_as(plain)


def test_a_hires_checkpoint_of_another_family_is_refused(webui):
    plain = webui.txt2img()
    job = webui.txt2img(UNIT, **HIRES, hr_checkpoint_name="tiny-short")
    assert job.status == 422, job.answer
    assert webui.txt2img().same_as(plain)


def test_a_checkpoint_of_another_family_is_refused(webui, record_property):
    job = webui.txt2img(UNIT, override_settings={"sd_model_checkpoint": "tiny-short"})
    assert (job.status, job.passes) == (422, [])
    record_property("verdict", "refused with message")
    record_property("seen", job.answer["detail"]["message"])
