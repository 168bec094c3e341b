"""Content leaves patch features where it is, and the head that finds it is the encoder's own end. Experimental."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_instantstyle.files.image_encoders import Feature, ImageEncoder, inspect_encoder
from lib_instantstyle.reference import patches
from lib_instantstyle.reference.content import Content, cosines, remove
from lib_instantstyle.reference.patches import PatchHead, read_patch_head, remove_from_patches
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


def content(embeds: Tensor) -> Content:
    probes = torch.randn(5, POOLED, generator=torch.Generator().manual_seed(9))
    return Content(embeds, torch.ones(len(embeds)), (probes,) * len(embeds))


def pull(head: PatchHead, hidden: Tensor, embeds: Tensor, method: str = "project", scale: float = 1.0) -> Tensor:
    return remove_from_patches(method, hidden, content(embeds), scale, head)


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


def test_pull_removes_to_first_order_what_the_method_would_remove(head: PatchHead, hidden: Tensor) -> None:
    embeds, scale = torch.randn(2, POOLED), 0.01
    said = head.dense(hidden)
    basis = torch.linalg.qr(embeds.T)[0].T
    after = pull(head, hidden, embeds, "project", scale)
    without = remove("project", said.flatten(0, 1), content(embeds), scale).view_as(said)
    asked = (said - without) @ basis.T
    found = (said - head.dense(after)) @ basis.T
    assert (found - asked).norm() < 0.02 * asked.norm()


def test_pull_takes_the_smallest_step(head: PatchHead, hidden: Tensor) -> None:
    """It lies along the slope of the reading: of all steps with its effect, none is shorter."""
    text = torch.randn(1, POOLED)
    step = pull(head, hidden, text, scale=0.01) - hidden
    moving = hidden.clone().requires_grad_()
    slope = torch.autograd.grad((head.dense(moving) @ (text[0] / text.norm())).sum(), moving)[0]
    cosine = torch.nn.functional.cosine_similarity(step, slope, dim=-1).abs()
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-3)


def test_pull_lowers_the_similarity_of_the_whole_picture(head: PatchHead, hidden: Tensor) -> None:
    text = head.pooled(hidden[:1])
    after = pull(head, hidden[:1], text, scale=0.5)
    assert cosines(head.pooled(after), text) < 0.9


@pytest.mark.parametrize("method", ["subtract", "project", "auto"])
def test_order_of_phrases_does_not_matter(method: str, head: PatchHead, hidden: Tensor) -> None:
    embeds = torch.randn(3, POOLED)
    found = [pull(head, hidden, embeds[order], method, 0.3) for order in ([0, 1, 2], [2, 0, 1])]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_pictures_are_pulled_one_by_one(head: PatchHead, hidden: Tensor) -> None:
    embeds = torch.randn(2, POOLED)
    both = pull(head, hidden, embeds, "auto")
    torch.testing.assert_close(both[1:], pull(head, hidden[1:], embeds, "auto"), **CLOSE)


def test_off_scale_zero_and_no_phrase_change_no_bit(head: PatchHead, hidden: Tensor) -> None:
    text = torch.randn(1, POOLED)
    for embeds, method, scale in (
        (text, "off", 1.0),
        (text, "project", 0.0),
        (torch.zeros(0, POOLED), "project", 1.0),
        (torch.zeros(1, POOLED), "project", 1.0),
    ):
        assert torch.equal(pull(head, hidden, embeds, method, scale), hidden)


def test_odd_inputs_give_numbers(head: PatchHead, hidden: Tensor) -> None:
    text = torch.randn(1, POOLED)
    flat = hidden[:, :1].expand(-1, PATCHES, -1)  # every token the same
    for states in (torch.zeros_like(hidden), flat):
        for embeds in (text, torch.cat([text, text]), torch.cat([text, -text]), torch.cat([text, 0 * text])):
            for method in ("subtract", "project", "auto"):
                assert pull(head, states, embeds, method).isfinite().all()


def test_works_without_gradients_and_in_half_precision(head: PatchHead, hidden: Tensor) -> None:
    text = torch.randn(1, POOLED)
    exact = pull(head, hidden, text, scale=0.5)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(pull(head, hidden, text, scale=0.5), exact)
    half = pull(head, hidden.half(), text, scale=0.5)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=0.02, atol=0.02)
    assert not exact.requires_grad


def test_moving_strength_and_method_reads_each_picture_once(
    file: Path, hidden: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, embeds = read_patch_head(inspect_encoder(file)), torch.randn(2, POOLED)
    readings: list[Tensor] = []
    dense = PatchHead.dense
    monkeypatch.setattr(PatchHead, "dense", lambda self, states: (readings.append(states), dense(self, states))[1])
    found = [pull(head, hidden, embeds, method, scale) for method in ("project", "auto") for scale in (0.5, 1)]
    assert len(readings) == len(hidden) == 2
    assert not any(torch.equal(one, other) for i, one in enumerate(found) for other in found[:i])
    pull(head, hidden, 2 * embeds[:1])
    assert len(readings) == 4  # other words


def test_readings_are_kept_up_to_a_limit(file: Path, hidden: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    head = read_patch_head(inspect_encoder(file))
    monkeypatch.setattr(patches, "KEPT_READINGS", 3 * hidden[:1].nbytes)
    for _ in range(5):
        pull(head, hidden, torch.randn(1, POOLED))
    assert len(head._kept) == 3
