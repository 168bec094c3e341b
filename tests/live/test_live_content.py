"""What is taken out of a reference changes the latents by exactly what the formulas say, for every method and space."""

from __future__ import annotations

import shutil

import pytest
import torch
from live_world import as_base64, picture
from oracle import STYLE, Styling
from oracle_prompts import Content
from safetensors.torch import save_file
from tiny_sdxl import write_tiny_adapter
from tiny_shapes import CLIP_WIDTH, OPEN_CLIP_WIDTH

ONE, GONE = picture(0), picture(3)
UNIT = {"image": as_base64(ONE)}
FULL_WIDTH = 96  # of the other CLIP's joint space

# What the API is told, and what that means.
REMOVALS = {
    "two phrases projected": (
        {"content_prompt": "a red cat, the sea", "content_method": "project", "content_scale": 1.0},
        Content(("a red cat", "the sea"), 1.0, "project"),
    ),
    "the same in another order, and one twice": (
        {"content_prompt": "the sea, a red cat,the sea", "content_method": "project", "content_scale": 0.8},
        Content(("a red cat", "the sea"), 0.8, "project"),
    ),
    "a weighted phrase": (
        {"content_prompt": "(a red cat:1.3)", "content_method": "project", "content_scale": 0.5},
        Content("a red cat", 0.65, "project"),
    ),
    "auto": (
        {"content_prompt": "a red cat", "content_method": "auto", "content_scale": 1.0},
        Content("a red cat", 1.0, "auto"),
    ),
    "the length restored": (
        {"content_prompt": "a red cat", "content_scale": 1.0, "content_renorm": True},
        Content("a red cat", 1.0, keeps_length=True),
    ),
    "a picture subtracted": ({"content_image": as_base64(GONE), "content_scale": 0.6}, Content((), 0.6, image=GONE)),
    "words and a picture projected": (
        {
            "content_prompt": "a red cat",
            "content_image": as_base64(GONE),
            "content_method": "project",
            "content_scale": 1.0,
        },
        Content("a red cat", 1.0, "project", image=GONE),
    ),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_changes_the_latents_as_the_formula_says(by_the_book, name):
    fields, content = REMOVALS[name]
    by_the_book.assert_equal([({**UNIT, **fields}, Styling((ONE,), {STYLE: 1.0}, content=content))])


@pytest.mark.parametrize("adapter", ["tiny-base", "tiny-plus"])
def test_a_picture_to_avoid_takes_the_place_of_none(by_the_book, adapter):
    unit = {**UNIT, "adapter": adapter, "negative_image": as_base64(GONE)}
    by_the_book.assert_equal([(unit, Styling((ONE,), {STYLE: 1.0}, adapter, negative=GONE))])


@pytest.mark.parametrize("scale", [0.7, 1.0])
def test_patches_of_a_plus_adapter_are_pulled(by_the_book, scale):
    unit = {**UNIT, "adapter": "tiny-plus", "content_prompt": "a red cat", "content_method": "project"}
    content = Content("a red cat", scale, "project")
    by_the_book.assert_equal(
        [({**unit, "content_scale": scale}, Styling((ONE,), {STYLE: 1.0}, "tiny-plus", content=content))]
    )


def test_removal_switched_off_changes_no_bit(webui):
    plain = webui.post("txt2img", [UNIT], {})
    off = webui.post("txt2img", [{**UNIT, "content_prompt": "a red cat", "content_method": "off"}], {})
    assert all(
        torch.equal(a, b) for one, two in zip(plain.passes, off.passes) for a, b in zip(one.tensors, two.tensors)
    )


@pytest.fixture(scope="module")
def full_clip(world):
    """A CLIP with both towers in a space of its own, as a folder beside the encoders, and an adapter that reads it."""
    from transformers import CLIPConfig, CLIPModel

    folder, adapter = world.encoder.parent / "full", world.adapter("tiny-full")
    torch.manual_seed(5)
    config = CLIPConfig(
        text_config={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1,
            "hidden_act": "gelu", "bos_token_id": 49406, "eos_token_id": 49407, "projection_dim": FULL_WIDTH,
        },
        vision_config={
            "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "hidden_act": "gelu", "image_size": 224, "patch_size": 32, "projection_dim": FULL_WIDTH,
        },
        projection_dim=FULL_WIDTH,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder, safe_serialization=True)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(world.checkpoint.text_tower / name, folder)
    write_tiny_adapter(adapter, kind="base", encoder_width=FULL_WIDTH, seed=7)
    yield folder
    shutil.rmtree(folder)
    adapter.unlink()


def test_another_clips_words_are_read_by_its_own_text_tower(by_the_book, full_clip):
    unit = {**UNIT, "adapter": "tiny-full", "content_prompt": "a red cat", "content_method": "project"}
    content = Content("a red cat", 1.0, "project", tower=full_clip)
    by_the_book.assert_equal(
        [({**unit, "content_scale": 1.0}, Styling((ONE,), {STYLE: 1.0}, "tiny-full", content=content))]
    )


def test_without_that_tower_the_job_is_refused_and_the_file_named(webui, world, full_clip):
    from transformers import CLIPVisionModelWithProjection

    hidden = full_clip.parent.parent / "hidden-full"
    alone = full_clip.parent / "vision-only"
    CLIPVisionModelWithProjection.from_pretrained(full_clip).save_pretrained(alone, safe_serialization=True)
    full_clip.rename(hidden)
    try:
        job = webui.post("txt2img", [{**UNIT, "adapter": "tiny-full", "content_prompt": "a red cat"}], {})
    finally:
        hidden.rename(full_clip)
        shutil.rmtree(alone)
    assert (job.status, job.answer["detail"]["field"]) == (422, "content_prompt")
    assert "full CLIP model" in job.answer["detail"]["message"]
    assert not job.passes


def teach(world, word, seed):
    """Write a textual inversion of that name, as training or a download would, and have the WebUI read it."""
    from modules.sd_hijack import model_hijack

    widths, drawn = {"clip_l": CLIP_WIDTH, "clip_g": OPEN_CLIP_WIDTH}, torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(1, width, generator=drawn) for name, width in widths.items()}
    path = world.folder / "embeddings" / f"{word}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(vectors, path)
    model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
    assert word in model_hijack.embedding_db.word_embeddings
    return path


def test_a_word_that_is_taught_anew_is_read_anew(webui, world):
    """What the text encoder said is kept; not beyond the textual inversion that it said it with."""
    unit = {**UNIT, "content_prompt": "a zyzzyva", "content_scale": 1.0}

    def job(seed):
        path = teach(world, "zyzzyva", seed)
        done = webui.post("txt2img", [unit], {})
        path.unlink()
        assert done.status == 200, done.answer
        return done

    untaught = webui.post("txt2img", [unit], {})
    first, second, first_again = job(1), job(2), job(1)
    assert first.same_as(first_again)
    assert not first.same_as(second)
    assert not first.same_as(untaught)
