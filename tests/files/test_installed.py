"""Which adapters and encoders are installed, which is chosen, and what is said when one is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_instantstyle.files.image_encoders import Feature
from lib_instantstyle.files.installed import ModelFiles
from lib_instantstyle.units.errors import (
    AdapterNotFoundError,
    CheckpointError,
    EncoderNotFoundError,
    TextTowerNotFoundError,
)

from ..published import install, layout, shapes_of, write_sparse
from ..tiny import (
    base_adapter,
    clip_model,
    open_clip_text_tensors,
    save_adapter,
    save_shards,
    sdxl_unet,
    text_model,
    vision_model,
)
from ..tiny.clip import HIDDEN, POOLED

BIGG, H = "encoder_vit-bigg_huggingface", "encoder_vit-h_huggingface"
BASE, BASE_H, PLUS, FACE = (
    "ip-adapter_sdxl",
    "ip-adapter_sdxl_vit-h",
    "ip-adapter-plus_sdxl_vit-h",
    "ip-adapter-plus-face_sdxl_vit-h",
)


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    folders = [tmp_path / "own", tmp_path / "shared"]
    return ModelFiles(lambda: folders, lambda: folders)


def test_missing_folders_hold_nothing(files: ModelFiles) -> None:
    assert files.adapters.usable() == files.encoders.usable() == []
    assert files.adapters.unusable() == []


def test_adapters_are_listed_by_stem_in_the_order_of_folders_and_names(files: ModelFiles, tmp_path: Path) -> None:
    install(BASE, tmp_path / "shared")
    install(PLUS, tmp_path / "own/sub/folder")
    install(BASE_H, tmp_path / "own")
    assert [info.name for info in files.adapters.usable()] == [BASE_H, PLUS, BASE]


def test_models_behind_links_to_folders_are_found_once(files: ModelFiles, tmp_path: Path) -> None:
    """As the WebUI and ControlNet find them; a link back up leads nowhere."""
    install(BASE, tmp_path / "elsewhere")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "own", target_is_directory=True)
    assert [info.path for info in files.adapters.usable()] == [tmp_path / "own/linked" / f"{BASE}.safetensors"]


def test_safetensors_come_before_pickles_and_the_first_of_one_name_counts(files: ModelFiles, tmp_path: Path) -> None:
    for folder in ("own", "shared"):
        install(BASE, tmp_path / folder)
    save_adapter(base_adapter(sdxl_unet(), POOLED), tmp_path / "own" / f"{BASE}.bin")
    assert files.adapters.inspect(tmp_path / "own" / f"{BASE}.bin").feature.width == POOLED
    assert [info.path for info in files.adapters.usable()] == [tmp_path / "own" / f"{BASE}.safetensors"]
    assert files.adapter(BASE).path == tmp_path / "own" / f"{BASE}.safetensors"


def test_other_files_in_the_folders_are_passed_over(files: ModelFiles, tmp_path: Path) -> None:
    install(BASE, tmp_path / "own")
    write_sparse(tmp_path / "own/lora.safetensors", {"lora_unet_up.weight": (2, 2)})
    torch.save({"weight": torch.zeros(2)}, tmp_path / "own/vae.pt")
    (tmp_path / "own/note.txt").write_text("")
    (tmp_path / "own/other.safetensors.index.json").write_text(
        '{"weight_map": {"lora_unet_up.weight": "lora.safetensors"}}'
    )
    (tmp_path / "own/folder.safetensors").mkdir()
    assert [info.name for info in files.adapters.usable()] == [BASE]
    assert files.adapters.unusable() == files.encoders.unusable() == files.encoders.usable() == []


def test_refused_adapters_are_listed_with_their_reasons(files: ModelFiles, tmp_path: Path) -> None:
    install("ip-adapter-faceid_sdxl", tmp_path / "own")
    install("ip-adapter_sd15", tmp_path / "own")
    (face, sd15) = (error.message for error in files.adapters.unusable())
    assert "FaceID" in face
    assert "SD 1.5" in sd15


@pytest.mark.parametrize("content", [b"\x08\0\0\0\0\0\0\0{to_k_ip", b"to_k_ip class_embedding"])
def test_one_odd_file_does_not_hide_the_others(files: ModelFiles, content: bytes, tmp_path: Path) -> None:
    install(BASE, tmp_path / "own")
    for suffix in (".safetensors", ".bin", ".ckpt", ".safetensors.index.json"):
        (tmp_path / "own" / f"a-odd{suffix}").write_bytes(content)
    write_sparse(
        tmp_path / "own/shapes.safetensors", {"ip_adapter.a.b.to_k_ip.weight": (), "visual.class_embedding": ()}
    )
    assert [info.name for info in files.adapters.usable()] == [BASE]
    assert files.encoders.usable() == []


@pytest.mark.parametrize("name", [BASE, f"{BASE}.safetensors"])
def test_adapter_is_found_by_name_with_or_without_ending(files: ModelFiles, name: str, tmp_path: Path) -> None:
    install(BASE, tmp_path / "own")
    assert files.adapter(name).name == BASE


def test_adapter_that_is_refused_is_named_with_the_reason(files: ModelFiles, tmp_path: Path) -> None:
    install("ip-adapter-faceid_sdxl", tmp_path / "own")
    with pytest.raises(CheckpointError, match="InsightFace") as caught:
        files.adapter("ip-adapter-faceid_sdxl")
    assert (caught.value.field, caught.value.status_code) == ("adapter", 422)


@pytest.mark.parametrize("name", ["nothing", "", "../own/ip-adapter_sdxl", "own/ip-adapter_sdxl"])
def test_unknown_adapter_is_a_404_that_lists_what_is_installed(files: ModelFiles, name: str, tmp_path: Path) -> None:
    install(BASE, tmp_path / "own")
    install(PLUS, tmp_path / "own")
    with pytest.raises(AdapterNotFoundError) as caught:
        files.adapter(name)
    assert caught.value.status_code == 404
    assert f"{PLUS}, {BASE}" in caught.value.message


AUTO = [
    ((BASE, BASE_H, PLUS), (BIGG, H), BASE),
    ((BASE, BASE_H, PLUS), (H,), BASE_H),
    ((BASE, PLUS), (H,), PLUS),
    ((BASE, BASE_H, PLUS), (), BASE),
    ((BASE_H, PLUS), (BIGG,), BASE_H),
    ((PLUS, FACE), (H,), PLUS),
    ((FACE, "ip_plus_composition_sdxl"), (H,), FACE),
]


@pytest.mark.parametrize(("adapters", "encoders", "chosen"), AUTO)
def test_auto_takes_the_best_adapter_whose_encoder_is_there(
    files: ModelFiles, adapters: tuple[str, ...], encoders: tuple[str, ...], chosen: str, tmp_path: Path
) -> None:
    for name in (*adapters, *encoders):
        install(name, tmp_path / "own")
    assert files.adapter("auto").name == chosen


RENAMED = ["surface-textures", "Interface v2", "my face style", "face", "decomposition", "ip-adapter-plus-face"]


@pytest.mark.parametrize("name", RENAMED)
def test_auto_does_not_go_by_parts_of_a_name(files: ModelFiles, name: str, tmp_path: Path) -> None:
    install(PLUS, tmp_path / "own")
    install(BASE_H, tmp_path / "own").rename(tmp_path / "own" / f"{name}.safetensors")
    install(H, tmp_path / "own")
    assert files.adapter("auto").name == name


@pytest.mark.parametrize("name", ["IP-Adapter-Plus-Face_SDXL_vit-h", "ip-adapter_plus_composition_sdxl"])
def test_auto_takes_adapters_taught_for_one_purpose_last(files: ModelFiles, name: str, tmp_path: Path) -> None:
    install(FACE, tmp_path / "own").rename(tmp_path / "own" / f"{name}.safetensors")
    install(PLUS, tmp_path / "own").rename(tmp_path / "own" / "z.safetensors")
    assert files.adapter("auto").name == "z"


def test_auto_takes_an_adapter_with_all_blocks_before_a_partial_one(files: ModelFiles, tmp_path: Path) -> None:
    style = {f"ip_adapter.{number}.to_{kind}_ip.weight" for number in range(69, 89, 2) for kind in "kv"}
    partial = {key: shape for key, shape in shapes_of(BASE).items() if key in style or key.startswith("image_proj.")}
    write_sparse(tmp_path / "own/a-style-block.safetensors", partial)
    install(BASE, tmp_path / "own")
    assert files.adapter("auto").name == BASE


def test_auto_without_any_adapter_says_what_to_download(files: ModelFiles, tmp_path: Path) -> None:
    install("ip-adapter_sd15", tmp_path / "own")
    with pytest.raises(AdapterNotFoundError, match=r"ip-adapter_sdxl\.safetensors \(0\.7 GB\)") as caught:
        files.adapter("auto")
    assert str(tmp_path / "own") in caught.value.message


FEATURES = [
    (Feature("pooled", 1280), BIGG, "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors (3.7 GB)"),
    (Feature("hidden", 1280), H, "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors (2.5 GB)"),
    (Feature("pooled", 1024), H, "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors (2.5 GB)"),
]


@pytest.mark.parametrize(("feature", "right", "advice"), FEATURES)
def test_encoder_is_told_by_its_feature_and_a_missing_one_by_its_file(
    files: ModelFiles, feature: Feature, right: str, advice: str, tmp_path: Path
) -> None:
    install(H if right == BIGG else BIGG, tmp_path / "own")
    with pytest.raises(EncoderNotFoundError) as caught:
        files.encoder(feature)
    assert advice in caught.value.message
    assert str(tmp_path / "own") in caught.value.message
    install(right, tmp_path / "shared")
    assert files.encoder(feature).name == right


def test_file_name_of_an_encoder_means_nothing(files: ModelFiles, tmp_path: Path) -> None:
    lying = write_sparse(tmp_path / "own/CLIP-ViT-H.safetensors", shapes_of(BIGG), layout(BIGG)["dtype"])
    assert files.encoder(Feature("pooled", 1280)).path == lying


def test_encoders_in_folders_of_their_own_may_share_one_file_name(files: ModelFiles, tmp_path: Path) -> None:
    for name in (H, BIGG):
        install(name, tmp_path / "own" / name).rename(tmp_path / "own" / name / "model.safetensors")
    assert files.encoder(Feature("pooled", 1024)).path.parent.name == H
    assert files.encoder(Feature("pooled", 1280)).path.parent.name == BIGG


def test_sharded_and_full_clip_models_are_encoders(files: ModelFiles, tmp_path: Path) -> None:
    index = save_shards(dict(vision_model().state_dict()), tmp_path / "own/sharded")
    assert files.encoder(Feature("hidden", HIDDEN)).path == index
    save_file({k: t.clone() for k, t in clip_model().state_dict().items()}, str(tmp_path / "own/full.safetensors"))
    assert files.encoder(Feature("pooled", POOLED)).path.name == "full.safetensors"


def test_file_is_inspected_again_only_when_it_changes(files: ModelFiles, tmp_path: Path) -> None:
    path = install(BASE, tmp_path / "own")
    first = files.adapter(BASE)
    assert files.adapter(BASE) is first
    os.utime(path, (1, 1))
    assert files.adapter(BASE) is not first
    write_sparse(path, shapes_of(PLUS))
    assert files.adapter(BASE).variant == "plus"
    path.unlink()
    with pytest.raises(AdapterNotFoundError):
        files.adapter(BASE)


FULL_H, FULL_BIGG = "encoder_vit-h_clip-model", "encoder_vit-bigg_open-clip"


def test_bigg_adapter_reads_prompts_with_the_checkpoint_unless_the_pristine_tower_is_wanted_and_there(
    files: ModelFiles, tmp_path: Path
) -> None:
    install(BIGG, tmp_path / "own")
    encoder = files.encoder(Feature("pooled", 1280))
    assert files.text_tower(encoder, 1280) is None
    assert files.text_tower(encoder, 1280, pristine=True) is None
    full = install(FULL_BIGG, tmp_path / "shared")
    assert files.text_tower(encoder, 1280) is None
    found = files.text_tower(encoder, 1280, pristine=True)
    assert found is not None
    assert found.path == full


@pytest.mark.parametrize("own_width", [1280, None])
def test_vit_h_adapter_needs_a_file_and_the_error_names_it(
    files: ModelFiles, own_width: int | None, tmp_path: Path
) -> None:
    install(H, tmp_path / "own")
    install(FULL_BIGG, tmp_path / "own")
    encoder = files.encoder(Feature("pooled", 1024))
    with pytest.raises(TextTowerNotFoundError, match="laion/CLIP-ViT-H-14-laion2B-s32B-b79K") as caught:
        files.text_tower(encoder, own_width)
    assert str(tmp_path / "own") in caught.value.message
    assert (caught.value.field, caught.value.status_code) == ("content_prompt", 422)
    full = install(FULL_H, tmp_path / "shared")
    found = files.text_tower(encoder, own_width)
    assert found is not None
    assert found.path == full


def test_text_tower_in_the_encoders_own_file_goes_before_others_and_known_before_unknown(
    files: ModelFiles, tmp_path: Path
) -> None:
    text = {name: tensor.clone() for name, tensor in text_model().state_dict().items()}
    (tmp_path / "own").mkdir()
    save_file(open_clip_text_tensors(text_model()), str(tmp_path / "own/a-text.safetensors"))
    save_file(text, str(tmp_path / "own/b-text.safetensors"))
    vision = {name: tensor.clone() for name, tensor in vision_model().state_dict().items()}
    save_file(vision, str(tmp_path / "own/c-vision.safetensors"))
    encoder = files.encoder(Feature("pooled", POOLED))
    assert files.text_tower(encoder, None).name == "a-text"
    full = {name: tensor.clone() for name, tensor in clip_model().state_dict().items()}
    for name in ("d-full", "e-full"):
        save_file(full, str(tmp_path / f"own/{name}.safetensors"))
    assert files.text_tower(encoder, None).name == "d-full"
    (own,) = (info for info in files.encoders.usable() if info.name == "e-full")
    assert files.text_tower(own, None).name == "e-full"


def test_text_towers_are_not_taken_for_encoders_nor_encoders_for_towers(files: ModelFiles, tmp_path: Path) -> None:
    install(H, tmp_path / "own")
    (tmp_path / "own/text").mkdir()
    text_model().save_pretrained(tmp_path / "own/text", safe_serialization=True)
    assert [info.name for info in files.encoders.usable()] == [H]
    assert [info.name for info in files.text_towers.usable()] == ["model"]
