"""POST /instantstyle/analyze, and measured results, against transformers' and open_clip's own towers."""

from __future__ import annotations

import re
import threading

import pytest
import torch
from live_world import as_base64, from_base64, picture
from oracle_prompts import text_embedding

IMAGE, OTHER = as_base64(picture(0)), as_base64(picture(1))
UNIT = {"image": IMAGE, "adapter": "tiny-base", "content_prompt": "a cat"}
MEASURE = {"instantstyle_measure": True}

# What is sent → the status, and the field that is named.
REFUSED = {
    "no object": ("hello", 422, None),
    "no picture": ({"content_prompt": "a cat"}, 422, "image"),
    "a path": ({"image": "/etc/hostname"}, 422, "image"),
    "a misspelt field": ({**UNIT, "content_promt": "a cat"}, 422, "content_promt"),
    "too strong a removal": ({**UNIT, "content_scale": 2.1}, 422, "content_scale"),
    "an unknown method": ({**UNIT, "content_method": "erase"}, 422, "content_method"),
    "too many words": ({**UNIT, "words": 101}, 422, "words"),
    "an unknown adapter": ({**UNIT, "adapter": "nope"}, 404, "adapter"),
}


def analyze(webui, **fields):
    return webui.client.post("/instantstyle/analyze", json={**UNIT, **fields})


@torch.no_grad()
def image_embedding(world, image):
    """(1, projection) by transformers' own encoder and preprocessing."""
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(world.encoder).eval()
    size = model.config.image_size
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return model(processor(images=image, return_tensors="pt").pixel_values).image_embeds


def cosine(one, other):
    return torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


def text(world, words):
    return text_embedding(world.checkpoint.weights, words)


@pytest.mark.parametrize("name", REFUSED)
def test_bad_requests_are_refused_by_field(webui, name):
    body, status, field = REFUSED[name]
    answer = webui.client.post("/instantstyle/analyze", json=body)
    assert answer.status_code == status
    assert answer.json()["detail"]["field"] == field
    assert answer.json()["detail"]["message"]


def test_phrases_are_told_before_and_after(webui, world):
    found = analyze(webui, content_prompt="a cat, snow", content_method="project", content_scale=1, words=0).json()
    e = image_embedding(world, picture(0))
    assert [phrase["text"] for phrase in found["phrases"]] == ["a cat", "snow"]
    for phrase in found["phrases"]:
        assert phrase["before"] == pytest.approx(cosine(e, text(world, phrase["text"])), abs=1e-4)
        assert phrase["after"] == pytest.approx(0, abs=1e-4)
    assert (found["words"], found["adapter"], found["text_tower"]) == ([], "tiny-base", "checkpoint")


def test_words_have_their_cosines_and_are_read_once(webui, world, monkeypatch):
    from lib_instantstyle.webui.hosts.live import live_host

    first = analyze(webui, words=10).json()
    e = image_embedding(world, picture(0))
    for word in first["words"]:
        assert word["score"] == pytest.approx(cosine(e, text(world, word["text"])), abs=1e-4)
    monkeypatch.setattr(type(live_host()), "checkpoint_text_embeds", lambda *args: pytest.fail("texts were read again"))
    assert analyze(webui, words=10).json() == first


@pytest.mark.parametrize("adapter", ["tiny-base", "tiny-plus", "auto"])
def test_every_adapter_is_analysed(webui, adapter):
    answer = analyze(webui, adapter=adapter, words=3)
    assert answer.status_code == 200, answer.json()
    assert len(answer.json()["words"]) == 3
    assert answer.json()["auto_scale"] is not None


def test_another_checkpoint_reads_with_its_own_tower(webui, world):
    from modules import sd_models, shared

    first = analyze(webui, words=0).json()
    kept = shared.sd_model.sd_checkpoint_info
    try:
        sd_models.reload_model_weights(info=sd_models.get_closet_checkpoint_match("tiny-other"))
        other = analyze(webui, words=0).json()
    finally:
        sd_models.reload_model_weights(info=kept)
    e = image_embedding(world, picture(0))
    before = cosine(e, text_embedding(world.other_checkpoint.weights, "a cat"))
    assert other["phrases"][0]["before"] == pytest.approx(before, abs=1e-4)
    assert analyze(webui, words=0).json() == first


def test_a_text_is_read_without_the_loras_of_the_job_before(webui):
    import networks

    before = analyze(webui, words=0, content_prompt="a lighthouse").json()
    webui.txt2img(prompt="a cat <lora:tiny-lora:1>")
    loaded = list(networks.loaded_networks)
    assert loaded
    analyze(webui, words=0, content_prompt="a windmill")
    assert networks.loaded_networks == loaded
    assert analyze(webui, words=0, content_prompt="a lighthouse").json() == before


def test_it_waits_for_the_job_in_progress(webui):
    from modules.call_queue import queue_lock

    answers = []
    with queue_lock:
        asking = threading.Thread(target=lambda: answers.append(analyze(webui, words=0).status_code))
        asking.start()
        asking.join(1)
        assert answers == []
    asking.join(60)
    assert answers == [200]


def test_analysing_changes_no_job(webui, by_the_book):
    webui.txt2img(UNIT)
    analyze(webui, words=3)
    assert webui.txt2img().same_as(by_the_book.plain("txt2img", {}))


def measured(infotext):
    from modules.infotext_utils import parse_generation_parameters

    said = parse_generation_parameters(infotext).get("InstantStyle measured", "")
    return {name: float(value) for name, value in re.findall(r"(\w+) (-?\d\.\d\d)", said)}


def test_results_are_measured_when_that_is_wanted_and_stay_the_same(webui, world):
    plain, job = webui.txt2img(UNIT), webui.txt2img(UNIT, options=MEASURE)
    assert "InstantStyle measured" not in plain.infotext
    found = measured(job.infotext)
    seen = image_embedding(world, from_base64(job.answer["images"][0]).convert("RGB"))
    cleaned = image_embedding(world, picture(0)) - 0.5 * text(world, "a cat")
    assert found["style"] == pytest.approx(cosine(seen, cleaned), abs=0.006)
    assert found["content"] == pytest.approx(cosine(seen, text(world, "a cat")), abs=0.006)
    assert found["prompt"] == pytest.approx(cosine(seen, text(world, "a cat")), abs=0.006)  # SETTINGS' prompt
    assert job.same_as(plain)
    assert from_base64(job.answer["images"][0]).tobytes() == from_base64(plain.answer["images"][0]).tobytes()


def test_every_picture_of_a_batch_has_its_own_measure_and_the_grid_none(webui):
    import json

    job = webui.txt2img(
        {"image": IMAGE}, batch_size=2, options={**MEASURE, "return_grid": True}, do_not_save_grid=False
    )
    texts = json.loads(job.answer["info"])["infotexts"]
    found = [measured(text) for text in texts]
    assert [bool(one) for one in found][-2:] == [True, True]
    assert all(set(one) == {"style", "prompt"} for one in found if one)
    if len(found) == 3:
        assert found[0] == {}


def test_a_failing_measure_costs_no_picture(webui, monkeypatch):
    from lib_instantstyle.reference.analysis import Analyst

    def fail(*args):
        raise RuntimeError("the plug was pulled")

    monkeypatch.setattr(Analyst, "measure", fail)
    job = webui.txt2img(UNIT, options=MEASURE)
    assert job.status == 200
    assert "InstantStyle measured" not in job.infotext
    assert job.same_as(webui.txt2img(UNIT))


def test_a_plain_job_is_not_measured(webui):
    assert "InstantStyle" not in webui.txt2img(options=MEASURE).infotext
