"""Content leaves patch features where it is, and the head that finds it is the encoder's own end. Experimental."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_instantstyle.files.image_encoders import Feature, ImageEncoder, inspect_encoder
from lib_instantstyle.reference.content import Content, cosines, remove
from lib_instantstyle.reference.patch_content import (
    PATCH_METHOD,
    PATCH_METHODS,
    PatchRemoval,
    content_share,
    fade,
    pull,
    remove_from_patches,
)
from lib_instantstyle.reference.patch_head import PatchHead, read_patch_head
from lib_instantstyle.units.errors import CheckpointError

from ..tiny import open_clip_tensors, picture, vision_model
from ..tiny.clip import HIDDEN, PATCHES, POOLED

CPU = torch.device("cpu")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    vision_model().save_pretrained(folder, safe_serialization=True)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def head(file: Path) -> PatchHead:
    return read_patch_head(inspect_encoder(file))


@pytest.fixture(scope="module")
def hidden(file: Path) -> Tensor:
    """(2, tokens, width) of two pictures."""
    encoder = ImageEncoder(inspect_encoder(file), CPU, torch.float32)
    return torch.cat([encoder.encode(picture(seed), Feature("hidden", HIDDEN)) for seed in (0, 1)])


@pytest.fixture(scope="module")
def grey(file: Path) -> Tensor:
    return ImageEncoder(inspect_encoder(file), CPU, torch.float32).encode_grey(Feature("hidden", HIDDEN))


def removal(head: PatchHead, grey: Tensor, embeds: Tensor, method: str = "project", scale: float = 1.0) -> PatchRemoval:
    probes = torch.randn(5, POOLED, generator=torch.Generator().manual_seed(9))
    content = Content(embeds, torch.ones(len(embeds)), (probes,) * len(embeds))
    return PatchRemoval(content, method, scale, head, grey)


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("form", ["huggingface", "open_clip"])
def test_head_ends_as_the_encoder_does(act: str, form: str, tmp_path: Path) -> None:
    model = vision_model(act, layer_norm_eps=1e-4) if form == "huggingface" else vision_model()
    model.save_pretrained(tmp_path, safe_serialization=True)
    path = tmp_path / "model.safetensors"
    if form == "open_clip":
        (tmp_path / "open_clip").mkdir()  # where no config.json speaks of it
        path = tmp_path / "open_clip/model.safetensors"
        save_file(open_clip_tensors(model), str(path))
    info = inspect_encoder(path)
    encoder = ImageEncoder(info, CPU, torch.float32)
    states = encoder.encode(picture(), Feature("hidden", HIDDEN))
    if form == "open_clip":
        info.config["num_attention_heads"] = 2  # by its width
    expected = encoder.encode(picture(), Feature("pooled", POOLED))
    torch.testing.assert_close(read_patch_head(info).pooled(states), expected, **CLOSE)


def test_each_token_is_read_by_itself(head: PatchHead, hidden: Tensor) -> None:
    said = head.dense(hidden)
    assert said.shape == (2, PATCHES, POOLED)
    torch.testing.assert_close(head.dense(hidden[:, 3:5]), said[:, 3:5], **CLOSE)


def test_a_lone_token_is_read_as_the_encoder_reads_a_picture_of_one_token(head: PatchHead, hidden: Tensor) -> None:
    torch.testing.assert_close(head.dense(hidden[:, :1])[:, 0], head.pooled(hidden[:, :1]), **CLOSE)


def test_only_the_end_of_the_file_is_read(file: Path, tmp_path: Path) -> None:
    kept = {k: t for k, t in load_file(str(file)).items() if "layers.1." not in k or "fc1.weight" in k}
    save_file(kept, str(tmp_path / "model.safetensors"))
    assert read_patch_head(inspect_encoder(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("fault", ["lost", "shape", "nan"])
def test_broken_head_is_refused_by_file(fault: str, file: Path, tmp_path: Path) -> None:
    tensors, name = load_file(str(file)), "vision_model.encoder.layers.2.self_attn.v_proj.weight"
    broken = tensors.pop(name)
    if fault != "lost":
        tensors[name] = broken[:, :7].clone() if fault == "shape" else broken * float("nan")
    save_file(tensors, str(tmp_path / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_patch_head(inspect_encoder(tmp_path / "model.safetensors"))


def test_fade_turns_tokens_that_speak_of_the_content_grey_and_leaves_the_others(
    head: PatchHead, hidden: Tensor, grey: Tensor
) -> None:
    one = hidden[:1]
    shown = head.dense(one)[:, 5]  # what the fifth token says is to go
    request = removal(head, grey, shown)
    share = content_share(one, request)[0]
    assert share.argmax() == 5
    assert share[5] > 0.9
    after = fade(one, request)
    torch.testing.assert_close(after, one + share[None, :, None] * (grey - one), **CLOSE)
    calm = share < 0.1
    assert calm.sum() > PATCHES / 2
    assert (after - one)[0, calm].norm() < 0.1 * (grey - one)[0, calm].norm()
    assert cosines(head.dense(after)[:, 5], shown) < cosines(shown, shown) - 0.1


def test_fade_by_half_goes_half_the_way_and_never_beyond_grey(head: PatchHead, hidden: Tensor, grey: Tensor) -> None:
    embeds = torch.randn(2, POOLED)
    whole, half = (content_share(hidden, removal(head, grey, embeds, scale=scale)) for scale in (1.0, 0.5))
    torch.testing.assert_close(half, whole / 2, **CLOSE)
    assert content_share(hidden, removal(head, grey, embeds, scale=2.0)).max() <= 1.0


def test_pull_removes_to_first_order_what_the_method_would_remove(
    head: PatchHead, hidden: Tensor, grey: Tensor
) -> None:
    embeds, scale = torch.randn(2, POOLED), 0.01
    said = head.dense(hidden)
    basis = torch.linalg.qr(embeds.T)[0].T
    after = pull(hidden, removal(head, grey, embeds, "project", scale))
    without = remove("project", said.flatten(0, 1), removal(head, grey, embeds).content, scale).view_as(said)
    asked = (said - without) @ basis.T
    found = (said - head.dense(after)) @ basis.T
    assert (found - asked).norm() < 0.02 * asked.norm()


def test_pull_takes_the_smallest_step(head: PatchHead, hidden: Tensor, grey: Tensor) -> None:
    """It lies along the slope of the reading: of all steps with its effect, none is shorter."""
    text = torch.randn(1, POOLED)
    step = pull(hidden, removal(head, grey, text, scale=0.01)) - hidden
    moving = hidden.clone().requires_grad_()
    slope = torch.autograd.grad((head.dense(moving) @ (text[0] / text.norm())).sum(), moving)[0]
    cosine = torch.nn.functional.cosine_similarity(step, slope, dim=-1).abs()
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-3)


def test_pull_lowers_the_similarity_of_the_whole_picture(head: PatchHead, hidden: Tensor, grey: Tensor) -> None:
    text = head.pooled(hidden[:1])
    after = pull(hidden[:1], removal(head, grey, text, scale=0.5))
    assert cosines(head.pooled(after), text) < 0.9


@pytest.mark.parametrize("content_method", ["subtract", "project", "auto"])
@pytest.mark.parametrize("method", PATCH_METHODS)
def test_order_of_phrases_does_not_matter(
    method: str, content_method: str, head: PatchHead, hidden: Tensor, grey: Tensor
) -> None:
    embeds = torch.randn(3, POOLED)
    found = [
        remove_from_patches(hidden, removal(head, grey, embeds[order], content_method, 0.3), method)
        for order in ([0, 1, 2], [2, 0, 1])
    ]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", PATCH_METHODS)
def test_off_scale_zero_and_no_phrase_change_no_bit(method: str, head: PatchHead, hidden: Tensor, grey: Tensor) -> None:
    text = torch.randn(1, POOLED)
    for request in (
        removal(head, grey, text, "off"),
        removal(head, grey, text, scale=0.0),
        removal(head, grey, torch.zeros(0, POOLED)),
        removal(head, grey, torch.zeros(1, POOLED)),
    ):
        assert torch.equal(remove_from_patches(hidden, request, method), hidden)


@pytest.mark.parametrize("method", PATCH_METHODS)
def test_odd_inputs_give_numbers(method: str, head: PatchHead, hidden: Tensor, grey: Tensor) -> None:
    text = torch.randn(1, POOLED)
    flat = hidden[:, :1].expand(-1, PATCHES, -1)  # every token the same
    for states in (torch.zeros_like(hidden), flat, grey):
        for embeds in (text, torch.cat([text, text]), torch.cat([text, -text]), torch.cat([text, 0 * text])):
            for content_method in ("subtract", "project", "auto"):
                request = removal(head, grey, embeds, content_method)
                assert remove_from_patches(states, request, method).isfinite().all()


@pytest.mark.parametrize("method", PATCH_METHODS)
def test_works_without_gradients_and_in_half_precision(
    method: str, head: PatchHead, hidden: Tensor, grey: Tensor
) -> None:
    request = removal(head, grey, torch.randn(1, POOLED), scale=0.5)
    exact = remove_from_patches(hidden, request, method)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(remove_from_patches(hidden, request, method), exact)
    half = remove_from_patches(hidden.half(), request, method)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.02)
    assert not exact.requires_grad


def test_default_is_one_of_the_methods() -> None:
    assert PATCH_METHOD in PATCH_METHODS


def test_moving_strength_and_method_reads_the_patches_once(
    file: Path, hidden: Tensor, grey: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, embeds = read_patch_head(inspect_encoder(file)), torch.randn(2, POOLED)
    readings: list[Tensor] = []
    dense = PatchHead.dense
    monkeypatch.setattr(PatchHead, "dense", lambda self, states: (readings.append(states), dense(self, states))[1])
    found = [
        pull(hidden, removal(head, grey, embeds, method, scale)) for method in ("project", "auto") for scale in (0.5, 1)
    ]
    assert len(readings) == 1
    assert not any(torch.equal(one, other) for i, one in enumerate(found) for other in found[:i])
    pull(hidden, removal(head, grey, 2 * embeds[:1]))
    pull(hidden[:1], removal(head, grey, embeds[:1]))
    assert len(readings) == 3  # other words, other pictures
