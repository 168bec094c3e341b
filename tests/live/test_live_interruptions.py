"""Jobs that end early, and files that vanish: an answer as usual, or a clear one, and nothing left behind."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from live_kind import kind
from live_watch import at_call
from live_world import as_base64, picture
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.matrix("interrupts and faults")

UNIT = {"image": as_base64(picture(0))}


def fail() -> None:
    raise RuntimeError("the plug was pulled")


def test_hooks_are_there_only_while_a_styled_job_samples(webui):
    with at_call(webui, 0, None) as styled:
        webui.txt2img(UNIT)
    with at_call(webui, 0, None) as plain:
        webui.txt2img()
    assert all(styled)
    assert plain == [[], []]


@pytest.mark.parametrize("next_tab", ["txt2img", "img2img"])
def test_a_failing_job_leaves_nothing_to_the_next(webui, by_the_book, next_tab):
    """The WebUI tells scripts nothing of a failure; so the next job starts by clearing up."""
    plain = by_the_book.plain(next_tab, {})
    with at_call(webui, 2, fail):
        failed = webui.txt2img(UNIT)
    with at_call(webui, 0, None) as found:
        job = webui.post(next_tab, (), {})
    assert failed.status == 500
    assert failed.says("the plug was pulled")
    assert found[0] == []
    assert job.same_as(plain)


def test_a_job_without_scripts_after_a_failing_one_is_plain(webui, by_the_book):
    """As other extensions run jobs; ours is not asked before them."""
    from modules import scripts

    runner = scripts.scripts_txt2img
    kept = runner.alwayson_scripts
    with at_call(webui, 2, fail):
        webui.txt2img(UNIT)
    runner.alwayson_scripts = []
    try:
        job = webui.txt2img()
    finally:
        runner.alwayson_scripts = kept
    assert job.same_as(by_the_book.plain("txt2img", {}))


@pytest.mark.parametrize(
    "settings",
    [{}, {"n_iter": 2}, {"enable_hr": True, "denoising_strength": 0.7, **kind().hires}],
    ids=["one picture", "two", "hires fix"],
)
def test_an_interrupted_job_ends_as_usual(webui, settings):
    from modules import shared

    with at_call(webui, 1, shared.state.interrupt):
        job = webui.txt2img(UNIT, **settings)
    assert job.status == 200
    assert len(job.passes) == 1
    assert not webui.hooks()


def test_a_skipped_picture_does_not_cost_the_next_its_style(webui):
    from modules import shared

    whole = webui.txt2img(UNIT, n_iter=2)
    with at_call(webui, 1, shared.state.skip):
        job = webui.txt2img(UNIT, n_iter=2)
    assert job.status == 200
    assert len(job.passes) == 2
    assert job.passes[1].latents.equal(whole.passes[1].latents)


def test_a_truncated_adapter_is_refused_by_name(webui, world):
    path = world.adapter("tiny-cut")
    shutil.copy(world.adapter("tiny-base"), path)
    unit = {**UNIT, "adapter": "tiny-cut"}
    try:
        assert webui.txt2img(unit).status == 200
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        job = webui.txt2img(unit)
    finally:
        path.unlink()
    assert (job.status, job.answer["detail"]["field"]) == (422, "adapter")
    assert "tiny-cut.safetensors" in job.answer["detail"]["message"]
    assert job.passes == []
    assert webui.txt2img(unit).status == 404


def test_an_adapter_that_breaks_only_when_it_is_read_is_refused(webui, world):
    """Names and shapes are in order, so this is found out when keys and values are computed."""
    path = world.adapter("tiny-nan")
    tensors = load_file(world.adapter("tiny-base"))
    tensors["ip_adapter.69.to_k_ip.weight"].fill_(torch.nan)
    save_file(tensors, path)
    try:
        job = webui.txt2img({**UNIT, "adapter": "tiny-nan"})
    finally:
        path.unlink()
    assert job.status == 422
    assert "tiny-nan.safetensors" in job.answer["detail"]["message"]
    assert job.passes == []


def test_a_missing_encoder_is_named(webui, world, tmp_path):
    """Even where the embedding it would give is still known."""
    assert webui.txt2img(UNIT).status == 200
    shutil.move(world.encoder, tmp_path / "away")
    try:
        job = webui.txt2img(UNIT)
    finally:
        shutil.move(tmp_path / "away", world.encoder)
    assert job.status == 422
    assert "of pooled width 256" in job.answer["detail"]["message"]
    assert "Put it into models/clip_vision." in job.answer["detail"]["message"]
    assert str(world.folder) not in json.dumps(job.answer)
    assert job.passes == []
