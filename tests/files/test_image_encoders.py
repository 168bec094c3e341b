"""Image encoders from every format in the wild give what transformers' own model gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib_instantstyle.files.image_encoders import Feature, ImageEncoder, inspect_encoder
from lib_instantstyle.units.errors import CheckpointError

from ..tiny import clip_model, open_clip_tensors, picture, save_shards, vision_model
from ..tiny.clip import HIDDEN, PATCHES, POOLED, image_processor

POOLED_FEATURE, HIDDEN_FEATURE = Feature("pooled", POOLED), Feature("hidden", HIDDEN)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 through three layers; outputs are of size one
CPU = torch.device("cpu")

Write = Callable[[nn.Module, Path], Path]


def encoder(path: Path, dtype: torch.dtype = torch.float32) -> ImageEncoder:
    return ImageEncoder(inspect_encoder(path), CPU, dtype)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def theirs(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled and penultimate features as transformers computes them, for either class."""
    output = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    return model.visual_projection(output.pooler_output), output.hidden_states[-2]


def expect_parity(model: nn.Module, path: Path) -> None:
    image, opened = picture(3, (50, 37)), encoder(path)
    pooled, hidden = theirs(model, image_processor(32)(images=image, return_tensors="pt").pixel_values)
    torch.testing.assert_close(opened.encode(image, POOLED_FEATURE), pooled, **CLOSE)
    torch.testing.assert_close(opened.encode(image, HIDDEN_FEATURE), hidden, **CLOSE)
    grey_pooled, grey_hidden = theirs(model, torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(opened.encode_grey(POOLED_FEATURE), grey_pooled, **CLOSE)
    torch.testing.assert_close(opened.encode_grey(HIDDEN_FEATURE), grey_hidden, **CLOSE)


def file_alone(model: nn.Module, folder: Path) -> Path:
    save_file(tensors_of(model), str(folder / "encoder.safetensors"))
    return folder / "encoder.safetensors"


def pickled_file(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def folder_with_config(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder, safe_serialization=True)
    return folder / "model.safetensors"


def shards(model: nn.Module, folder: Path) -> Path:
    return save_shards(tensors_of(model), folder)


def open_clip(model: nn.Module, folder: Path) -> Path:
    save_file(open_clip_tensors(model), str(folder / "open_clip.safetensors"))
    return folder / "open_clip.safetensors"


def open_clip_with_text(model: nn.Module, folder: Path) -> Path:
    text = {
        "positional_embedding": torch.randn(77, 64),
        "text_projection": torch.randn(64, POOLED),
        "token_embedding.weight": torch.randn(9, 64),
        "transformer.resblocks.0.ln_1.weight": torch.randn(64),
        "ln_final.weight": torch.randn(64),
        "logit_scale": torch.tensor(1.0),
    }
    torch.save({"state_dict": None, **text, **open_clip_tensors(model)}, folder / "open_clip_pytorch_model.bin")
    return folder / "open_clip_pytorch_model.bin"


def open_clip_vision_only(model: nn.Module, folder: Path) -> Path:
    save_file(open_clip_tensors(model, prefix=""), str(folder / "visual.safetensors"))
    return folder / "visual.safetensors"


WRITERS: list[Write] = [
    file_alone,
    pickled_file,
    folder_with_config,
    shards,
    open_clip,
    open_clip_with_text,
    open_clip_vision_only,
]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@torch.no_grad()
def test_vision_tower_gives_transformers_embeddings(write: Write, tmp_path: Path) -> None:
    expect_parity(vision_model(), write(vision_model(), tmp_path))


@pytest.mark.parametrize("write", [file_alone, folder_with_config, shards], ids=lambda write: write.__name__)
@torch.no_grad()
def test_full_clip_model_gives_transformers_embeddings(write: Write, tmp_path: Path) -> None:
    expect_parity(clip_model(), write(clip_model(), tmp_path))


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "quick_gelu"}, {"num_attention_heads": 4}, {"num_attention_heads": 8, "layer_norm_eps": 0.01}],
    ids=str,
)
@torch.no_grad()
def test_config_beside_the_file_says_what_shapes_cannot(changes: dict[str, object], tmp_path: Path) -> None:
    model = vision_model(**changes)
    expect_parity(model, folder_with_config(model, tmp_path))


@torch.no_grad()
def test_default_of_transformers_counts_where_a_config_is_silent(tmp_path: Path) -> None:
    model = vision_model("quick_gelu")
    path = folder_with_config(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("hidden_act", None)  # transformers may leave out what equals its default
    (tmp_path / "config.json").write_text(json.dumps(config))
    expect_parity(model, path)


@pytest.mark.parametrize("config", ["not json", "[]", '"text"', "null", '{"vision_config": [1]}', '{"hidden_size": 7}'])
@torch.no_grad()
def test_config_of_something_else_is_passed_over(config: str, tmp_path: Path) -> None:
    path = file_alone(vision_model(), tmp_path)
    (tmp_path / "config.json").write_text(config)
    expect_parity(vision_model(), path)


@torch.no_grad()
def test_openai_vit_l_is_the_one_with_quick_gelu(tmp_path: Path) -> None:
    sizes = {"hidden_size": 1024, "projection_dim": 768, "num_hidden_layers": 1, "intermediate_size": 8}
    model = vision_model("quick_gelu", num_attention_heads=16, **sizes)
    opened, image = encoder(file_alone(model, tmp_path)), picture()
    pooled, _ = theirs(model, image_processor(32)(images=image, return_tensors="pt").pixel_values)
    torch.testing.assert_close(opened.encode(image, Feature("pooled", 768)), pooled, rtol=1e-4, atol=1e-4)


def test_features_have_their_shapes_in_float32_on_the_cpu(tmp_path: Path) -> None:
    opened = encoder(file_alone(vision_model(), tmp_path), torch.bfloat16)
    pooled, hidden = opened.encode(picture(), POOLED_FEATURE), opened.encode(picture(), HIDDEN_FEATURE)
    assert (pooled.shape, hidden.shape) == ((1, POOLED), (1, PATCHES, HIDDEN))
    assert {pooled.dtype, hidden.dtype} == {torch.float32}


def test_bfloat16_encoder_is_near_the_exact_one(tmp_path: Path) -> None:
    path = file_alone(vision_model(), tmp_path)
    exact, near = (encoder(path, dtype).encode(picture(), POOLED_FEATURE) for dtype in (torch.float32, torch.bfloat16))
    assert torch.nn.functional.cosine_similarity(exact, near).item() > 0.999


@pytest.mark.parametrize("lost", ["vision_model.encoder.layers.1.mlp.fc2.bias", "vision_model.pre_layrnorm.weight"])
def test_incomplete_encoder_is_refused_with_what_it_lacks(lost: str, tmp_path: Path) -> None:
    path = file_alone(vision_model(), tmp_path)
    save_file({name: tensor for name, tensor in load_file(str(path)).items() if name != lost}, str(path))
    with pytest.raises(CheckpointError, match=lost.replace(".", r"\.")):
        encoder(path)


def test_encoder_with_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = file_alone(vision_model(), tmp_path)
    save_file({**load_file(str(path)), "vision_model.post_layernorm.bias": torch.zeros(3)}, str(path))
    with pytest.raises(CheckpointError, match="does not fit its own layout"):
        encoder(path)


@pytest.mark.parametrize("heads", [0, 7])
def test_encoder_with_an_impossible_number_of_heads_is_refused(heads: int, tmp_path: Path) -> None:
    path = folder_with_config(vision_model(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_attention_heads": heads}))
    with pytest.raises(CheckpointError, match="does not fit its own layout"):
        encoder(path)


def test_encoder_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    path = file_alone(vision_model(), tmp_path)
    broken = load_file(str(path))
    broken["vision_model.pre_layrnorm.bias"][0] = float("nan")
    save_file(broken, str(path))
    with pytest.raises(CheckpointError, match="NaN"):
        encoder(path).encode(picture(), POOLED_FEATURE)


def test_file_without_a_vision_tower_is_refused(tmp_path: Path) -> None:
    save_file({"text_model.final_layer_norm.bias": torch.ones(2)}, str(tmp_path / "text.safetensors"))
    with pytest.raises(CheckpointError, match=r"text\.safetensors does not hold a CLIP image encoder"):
        inspect_encoder(tmp_path / "text.safetensors")


def test_sharded_encoder_without_one_of_its_parts_is_refused(tmp_path: Path) -> None:
    index = shards(vision_model(), tmp_path)
    next(tmp_path.glob("*-of-*")).unlink()
    with pytest.raises(CheckpointError):
        inspect_encoder(index)


@pytest.mark.parametrize("around", ["module.", "image_encoder.", "state_dict.model.", "clip.vision_tower."])
@pytest.mark.parametrize("layout", ["huggingface", "open_clip", "open_clip_alone"])
def test_an_encoder_under_any_prefix_is_the_same_encoder(layout: str, around: str, tmp_path: Path) -> None:
    model = vision_model()
    tensors = {
        "huggingface": lambda: tensors_of(model),
        "open_clip": lambda: open_clip_tensors(model),
        "open_clip_alone": lambda: open_clip_tensors(model, ""),
    }[layout]()
    path = tmp_path / "wrapped.safetensors"
    save_file({f"{around}{name}": tensor for name, tensor in tensors.items()}, str(path))
    expect_parity(model, path)
