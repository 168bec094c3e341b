"""Style from a LoRA: the merged weights of the routed blocks, and with all of them the WebUI's own `<lora:…>`."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from live_case import seen_in
from live_kind import kind
from live_world import as_base64, picture
from safetensors.torch import load_file

NAME = "tiny-lora"  # for the queries and outputs of attn2 in the style block
UNIT = {"method": "lora", "lora": NAME, "weight": 0.8}
by_hand = pytest.mark.skipif(kind().is_fork, reason="with weights exchanged by hand even a plain job fails there")


@contextmanager
def merged(webui, world, scale):
    """While it lasts, the UNet's weights are those with the file's pairs added by hand."""
    tensors = load_file(world.folder / "models" / "Lora" / f"{NAME}.safetensors")
    weights = {path.replace(".", "_"): module for path, module in webui.unet.named_modules()}
    changed = []
    for key in (key for key in tensors if key.endswith(".lora_down.weight")):
        name = key.removesuffix(".lora_down.weight")
        weight = weights[name.removeprefix("lora_unet_")].weight
        changed.append((weight, weight.data))
        up, down = (tensors[f"{name}.lora_{half}.weight"].to(weight.data) for half in ("up", "down"))
        weight.data = weight.data + scale * up @ down
    assert changed
    try:
        yield
    finally:
        for weight, own in changed:
            weight.data = own


@by_hand
def test_it_is_the_file_merged_by_hand_and_leaves_nothing(webui, world):
    plain, styled = webui.txt2img(), webui.txt2img(UNIT)
    assert styled.status == 200, styled.answer
    again, idle = webui.txt2img(), webui.txt2img({**UNIT, "weight": 0})
    with merged(webui, world, 0.8):
        expected = webui.txt2img()
    assert plain.same_as(again)
    assert plain.same_as(idle)
    seen_in(plain, styled, expected)


def test_with_every_block_it_is_the_webuis_own(webui):
    plain, styled = webui.txt2img(), webui.txt2img({**UNIT, "preset": "original"})
    seen_in(plain, styled, webui.txt2img(prompt=f"a cat <lora:{NAME}:0.8>"))
    assert plain.same_as(webui.txt2img())


@by_hand
def test_beside_an_adapter_both_act_in_any_order(webui, world):
    pictured = {"image": as_base64(picture(0)), "preset": "original"}
    with merged(webui, world, 0.8):
        plain, expected = webui.txt2img(), webui.txt2img(pictured)
    for units in ((UNIT, pictured), (pictured, UNIT)):
        seen_in(plain, webui.txt2img(*units), expected)


def test_a_picture_says_all_about_it(webui):
    assert f"method: lora, lora: {NAME}, preset: style, weight: 0.8" in webui.txt2img(UNIT).infotext


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [({"lora": "nothing"}, 404, "lora"), ({"preset": "layout"}, 422, "preset"), ({"image": "abc"}, 422, "image")],
)
def test_refusals_name_the_field_and_no_folder(webui, world, fields, status, field):
    job = webui.txt2img({**UNIT, **fields})
    assert (job.status, job.answer["detail"]["field"]) == (status, field)
    assert str(world.folder) not in str(job.answer)
