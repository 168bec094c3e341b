"""LoRA files: every way of writing them gives the same pairs, and what is none is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_instantstyle.files.loras import Lora, Target, inspect_lora
from lib_instantstyle.units.errors import CheckpointError

from ..tiny import sdxl_unet
from ..tiny.loras import FORMS, RANK, linear_paths, tiny_pairs, write_lora

STYLE = "up_blocks.0.attentions.1"
BLOCKS = (STYLE, "mid_block.attentions.0", "down_blocks.1.attentions.0")
UNET = sdxl_unet()
PAIRS = tiny_pairs(UNET, linear_paths(UNET, *BLOCKS))
ONE = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q"


def target_of(path: str) -> Target:
    block = next(name for name in BLOCKS if path.startswith(name))
    inside = path.removeprefix(f"{block}.")
    if not inside.startswith("transformer_blocks."):
        return Target(block, None, inside)
    _, depth, module = inside.split(".", 2)
    return Target(block, int(depth), module)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("alpha", [None, 1.0, 6.0])
def test_every_form_gives_the_same_pairs(form: str, alpha: float | None, tmp_path: Path) -> None:
    lora = Lora(inspect_lora(write_lora(tmp_path / "style.safetensors", PAIRS, form, alpha)))
    assert set(lora.info.pairs) == {target_of(path) for path in PAIRS}
    for path, (down, up) in PAIRS.items():
        read_down, read_up = lora.read(target_of(path))
        assert torch.equal(read_down, down)
        torch.testing.assert_close(read_up, up if alpha is None else up * (alpha / RANK))


def test_shapes_are_those_of_the_layers_they_add_to(tmp_path: Path) -> None:
    info = inspect_lora(write_lora(tmp_path / "style.safetensors", PAIRS))
    for path in PAIRS:
        assert info.pairs[target_of(path)].widths == tuple(UNET.get_submodule(path).weight.shape)


def test_alpha_is_read_from_the_header_of_a_peft_file(tmp_path: Path) -> None:
    path = f"{STYLE}.transformer_blocks.0.attn1.to_q"
    down, up = PAIRS[path]
    tensors = {f"unet.{path}.lora_A.weight": down.contiguous(), f"unet.{path}.lora_B.weight": up.contiguous()}
    settings = {"unet.lora_alpha": 2, "unet.alpha_pattern": {}}
    save_file(tensors, tmp_path / "style.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    _, read = Lora(inspect_lora(tmp_path / "style.safetensors")).read(target_of(path))
    torch.testing.assert_close(read, up * 2 / RANK)


def test_what_is_not_in_a_block_is_passed_over(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "style.safetensors", PAIRS)
    extra = ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_unet_time_embed_0")
    tensors = {f"{name}.lora_{end}.weight": torch.ones(4, 4) for name in extra for end in ("down", "up")}
    save_file({**load_file(path), **tensors}, path)
    assert set(inspect_lora(path).pairs) == {target_of(one) for one in PAIRS}


REFUSED = {
    "LoHa": ({f"{ONE}.hada_w1_a": (4, 4)}, "LoHa"),
    "LoKr": ({f"{ONE}.lokr_w1": (4, 4)}, "LoKr"),
    "DoRA": ({f"{ONE}.lora_down.weight": (4, 8), f"{ONE}.lora_up.weight": (8, 4), f"{ONE}.dora_scale": (8, 1)}, "DoRA"),
    "IA3": ({f"{ONE}.weight": (4,), f"{ONE}.on_input": (1,)}, "IA³"),
    "SD 1.5": (
        {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": (4, 8)},
        "SD 1.5",
    ),
    "another family": ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 8)}, "cross-attention blocks"),
    "text encoder alone": ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 8)}, "UNet"),
    "not a LoRA": ({"model.weight": (4, 4)}, "not a LoRA"),
    "half a pair": ({f"{ONE}.lora_down.weight": (4, 8)}, "one half"),
    "halves of two": ({f"{ONE}.lora_down.weight": (4, 8), f"{ONE}.lora_up.weight": (8, 5)}, "do not fit"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_cannot_be_used_is_refused_by_name(case: str, tmp_path: Path) -> None:
    shapes, said = REFUSED[case]
    save_file({key: torch.ones(shape) for key, shape in shapes.items()}, tmp_path / "file.safetensors")
    with pytest.raises(CheckpointError, match=said) as refused:
        inspect_lora(tmp_path / "file.safetensors")
    assert refused.value.field == "lora"
    assert "file.safetensors" in refused.value.message


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    spoilt = {path: (down, up * float("nan")) for path, (down, up) in PAIRS.items()}
    lora = Lora(inspect_lora(write_lora(tmp_path / "style.safetensors", spoilt)))
    with pytest.raises(CheckpointError, match="damaged"):
        lora.read(next(iter(lora.info.pairs)))


def test_a_file_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    info = inspect_lora(write_lora(tmp_path / "style.safetensors", PAIRS))
    write_lora(tmp_path / "style.safetensors", dict(list(PAIRS.items())[:3]))
    with pytest.raises(CheckpointError, match="replaced"):
        Lora(info)
