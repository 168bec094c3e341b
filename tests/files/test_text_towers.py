"""Text towers from every format in the wild give what transformers' own model gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTokenizerFast

from lib_instantstyle.files.image_encoders import inspect_encoder
from lib_instantstyle.files.text_towers import BATCH, TextTower, TextTowerInfo, inspect_text_tower, tokenizer_beside
from lib_instantstyle.units.errors import CheckpointError

from ..published import install, layout
from ..tiny import clip_model, open_clip_of_both, open_clip_text_tensors, save_shards, text_model, vision_model
from ..tiny.clip import HIDDEN, POOLED
from ..tiny.pipelines import tokenizer

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 through two layers; outputs are of size one
CPU = torch.device("cpu")
START, END, CONTEXT = 97, 98, 77
TEXTS = ("a", "a rabbit", "a" * 75, "b" * 200, "")

Write = Callable[[Path], Path]


def tokenize(text: str) -> list[int]:
    return [ord(letter) % 97 for letter in text]


def tower(path: Path, dtype: torch.dtype = torch.float32) -> TextTower:
    return TextTower(inspect_text_tower(path), tokenize, CPU, dtype)


def rows(texts: tuple[str, ...], pad: int) -> Tensor:
    """Token numbers as CLIP's own tokenizers make them: start, text, end, filled up to the context."""
    made = [[START, *tokenize(text)[: CONTEXT - 2], END] for text in texts]
    return torch.tensor([row + [pad] * (CONTEXT - len(row)) for row in made])


@torch.no_grad()
def theirs(model: nn.Module, pad: int = END) -> Tensor:
    """transformers' own text embeddings, for either class."""
    if hasattr(model, "get_text_features"):
        found = model.get_text_features(input_ids=rows(TEXTS, pad))
        return getattr(found, "pooler_output", found)  # a record since transformers 5
    return model(input_ids=rows(TEXTS, pad)).text_embeds


def saved(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, str(path))
    return path


def both_towers(folder: Path) -> Path:
    return saved(clip_model().state_dict(), folder / "clip.safetensors")


def folder_of_both(folder: Path) -> Path:
    clip_model().save_pretrained(folder, safe_serialization=True)
    return folder / "model.safetensors"


def pickled(folder: Path) -> Path:
    torch.save(clip_model().state_dict(), folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def shards(folder: Path) -> Path:
    return save_shards(dict(clip_model().state_dict()), folder)


def text_alone(folder: Path) -> Path:
    tensors = {name: tensor for name, tensor in clip_model().state_dict().items() if name.startswith("text_")}
    return saved(tensors, folder / "text.safetensors")


def under_a_prefix(folder: Path) -> Path:
    return saved({f"model.{k}": t for k, t in clip_model().state_dict().items()}, folder / "clip.safetensors")


def open_clip(folder: Path) -> Path:
    torch.save(open_clip_of_both(clip_model()), folder / "open_clip_pytorch_model.bin")
    return folder / "open_clip_pytorch_model.bin"


def open_clip_text(folder: Path) -> Path:
    return saved(open_clip_text_tensors(clip_model()), folder / "text.safetensors")


def open_clip_custom_text(folder: Path) -> Path:
    tensors = open_clip_text_tensors(clip_model(), "text.", linear=True)
    return saved({**tensors, "visual.class_embedding": torch.ones(HIDDEN)}, folder / "open_clip.safetensors")


def in_a_checkpoint(folder: Path) -> Path:
    tensors = open_clip_text_tensors(clip_model(), "conditioner.embedders.1.model.")
    return saved(tensors, folder / "checkpoint.safetensors")


WITH_VISION = [both_towers, folder_of_both, pickled, shards, under_a_prefix, open_clip, open_clip_custom_text]
ALONE = [text_alone, open_clip_text, in_a_checkpoint]


@pytest.mark.parametrize("write", [*WITH_VISION, *ALONE], ids=lambda write: write.__name__)
def test_text_tower_gives_transformers_embeddings(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path)
    torch.testing.assert_close(tower(path).encode(TEXTS), theirs(clip_model()), **CLOSE)
    assert inspect_text_tower(path).vision_width == (HIDDEN if write in WITH_VISION else None)


def test_text_is_filled_up_with_anything_as_open_clip_does_with_zeros(tmp_path: Path) -> None:
    torch.testing.assert_close(theirs(clip_model(), pad=0), theirs(clip_model()), **CLOSE)
    torch.testing.assert_close(tower(both_towers(tmp_path)).encode(TEXTS), theirs(clip_model(), pad=0), **CLOSE)


def test_embeddings_do_not_depend_on_what_else_is_encoded(tmp_path: Path) -> None:
    opened = tower(both_towers(tmp_path))
    many = [f"{number} rabbits" * (number % 7) for number in range(BATCH + 3)]
    together = opened.encode(many)
    assert together.shape == (BATCH + 3, POOLED)
    for at in (0, 1, BATCH - 1, BATCH, BATCH + 2):
        torch.testing.assert_close(opened.encode([many[at]])[0], together[at], **CLOSE)
    assert opened.encode([]).shape == (0, POOLED)


def test_openclip_and_hugging_face_say_the_same_of_one_model(tmp_path: Path) -> None:
    of_one = [inspect_text_tower(write(tmp_path)) for write in (both_towers, open_clip)]
    assert of_one[0].config == of_one[1].config
    assert [info.layout for info in of_one] == ["huggingface", "open_clip"]


@pytest.mark.parametrize("changes", [{"num_attention_heads": 4}, {"layer_norm_eps": 0.01}], ids=str)
@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_config_beside_the_file_says_what_shapes_cannot(act: str, changes: dict[str, object], tmp_path: Path) -> None:
    model = text_model(act, **changes)
    model.save_pretrained(tmp_path, safe_serialization=True)
    torch.testing.assert_close(tower(tmp_path / "model.safetensors").encode(TEXTS), theirs(model), **CLOSE)


def test_old_config_with_a_wrong_end_token_changes_nothing(tmp_path: Path) -> None:
    """Configs before transformers' #24773 call token 2 the end, which is in every long text."""
    path = folder_of_both(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"] |= {"eos_token_id": 2, "bos_token_id": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.testing.assert_close(tower(path).encode(TEXTS), theirs(clip_model()), **CLOSE)


def test_openai_vit_l_is_the_one_with_quick_gelu(tmp_path: Path) -> None:
    model = text_model("quick_gelu", hidden_size=768, projection_dim=768, num_attention_heads=12, num_hidden_layers=1)
    path = saved(dict(model.state_dict()), tmp_path / "text.safetensors")
    torch.testing.assert_close(tower(path).encode(TEXTS), theirs(model), rtol=1e-4, atol=1e-4)


PUBLISHED = {"encoder_vit-h": (1024, 24, 16, 4096), "encoder_vit-bigg": (1280, 32, 20, 5120)}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("form", ["clip-model", "open-clip"])
def test_published_towers_are_known_from_the_table_of_names_alone(name: str, form: str, tmp_path: Path) -> None:
    width, layers, heads, inner = PUBLISHED[name]
    path = install(f"{name}_{form}", tmp_path)
    info = inspect_text_tower(path)
    assert info.config == {
        "vocab_size": 49408,
        "hidden_size": width,
        "projection_dim": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
    assert info.vision_width == layout(f"{name}_{form}")["expect"]["hidden_size"]
    assert info.pairs_with(inspect_encoder(path))


def test_tower_of_one_width_but_another_image_tower_does_not_pair(tmp_path: Path) -> None:
    """ViT-H and ViT-g both project to 1024."""
    vision_model().save_pretrained(tmp_path, safe_serialization=True)
    encoder = inspect_encoder(tmp_path / "model.safetensors")
    fitting, alone = inspect_text_tower(both_towers(tmp_path)), inspect_text_tower(text_alone(tmp_path))
    other = TextTowerInfo(fitting.path, fitting.layout, "", fitting.config, HIDDEN + 64)
    narrow = TextTowerInfo(fitting.path, fitting.layout, "", {**fitting.config, "projection_dim": 8}, HIDDEN)
    assert [info.pairs_with(encoder) for info in (fitting, alone, other, narrow)] == [True, True, False, False]


def test_bfloat16_tower_is_near_the_exact_one(tmp_path: Path) -> None:
    path = both_towers(tmp_path)
    exact, near = (tower(path, dtype).encode(TEXTS) for dtype in (torch.float32, torch.bfloat16))
    assert near.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, near).min() > 0.99


@pytest.mark.parametrize("lost", ["text_model.encoder.layers.1.mlp.fc2.bias", "text_model.final_layer_norm.weight"])
def test_incomplete_tower_is_refused_with_what_it_lacks(lost: str, tmp_path: Path) -> None:
    path = text_alone(tmp_path)
    saved({name: tensor for name, tensor in load_file(str(path)).items() if name != lost}, path)
    with pytest.raises(CheckpointError, match=lost.replace(".", r"\.")):
        tower(path)


@pytest.mark.parametrize("name", ["text_model.final_layer_norm.bias", "text_projection.weight"])
def test_tower_with_a_tensor_of_another_shape_is_refused(name: str, tmp_path: Path) -> None:
    path = text_alone(tmp_path)
    saved({**load_file(str(path)), name: torch.zeros(3, 5)}, path)
    with pytest.raises(CheckpointError, match="does not fit its own layout"):
        tower(path)


def test_tower_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    path = text_alone(tmp_path)
    broken = load_file(str(path))
    broken["text_model.final_layer_norm.bias"][0] = float("nan")
    saved(broken, path)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        tower(path).encode(["a"])


def test_file_without_a_text_tower_is_refused(tmp_path: Path) -> None:
    vision_model().save_pretrained(tmp_path, safe_serialization=True)
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not hold a CLIP text tower"):
        inspect_text_tower(tmp_path / "model.safetensors")


def test_tokens_outside_the_vocabulary_are_left_out(tmp_path: Path) -> None:
    info = inspect_text_tower(both_towers(tmp_path))
    odd = TextTower(info, lambda _: [1, -5, 10**6, END, START, 2], CPU, torch.float32)
    plain = TextTower(info, lambda _: [1, 2], CPU, torch.float32)
    torch.testing.assert_close(odd.encode(["x"]), plain.encode(["x"]), **CLOSE)


VOCABULARY = ["!", "a", "b", "!</w>", "a</w>", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]


def write_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")


def test_tokenizer_beside_the_file_is_read_without_special_tokens(tmp_path: Path) -> None:
    assert tokenizer_beside(tmp_path / "model.safetensors") is None
    write_tokenizer(tmp_path)
    found = tokenizer_beside(tmp_path / "model.safetensors")
    assert found is not None
    assert list(found("ab AB a!")) == [6, 6, 4, 3]
    assert len(found("a " * 500)) == 500


@pytest.mark.parametrize("vocabulary", ["", "[]", "{}", "null", '{"a": "b"}', "not json"])
def test_broken_tokenizer_is_as_good_as_none(vocabulary: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text(vocabulary)
    found = tokenizer_beside(tmp_path / "model.safetensors")
    assert found is None or all(isinstance(number, int) for number in found("a b"))


def test_tokenizer_in_one_file_is_read_like_the_one_in_two(tmp_path: Path) -> None:
    words = tokenizer(tmp_path / "two")
    (tmp_path / "one").mkdir()
    fast = CLIPTokenizerFast.from_pretrained(str(tmp_path / "two"))
    fast.save_pretrained(str(tmp_path / "one"), legacy_format=False)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / "one" / name).unlink(missing_ok=True)
    found = tokenizer_beside(tmp_path / "one" / "model.safetensors")
    assert found is not None
    assert list(found("a red rabbit, on the roof")) == words("a red rabbit, on the roof").input_ids[1:-1]
