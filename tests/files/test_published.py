"""Every published file is known by its keys and shapes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from lib_instantstyle.files.adapters import identify, inspect_adapter
from lib_instantstyle.files.downloads import DOWNLOADS
from lib_instantstyle.files.image_encoders import Feature, inspect_encoder
from lib_instantstyle.files.projections import ImageProjModel, Resampler
from lib_instantstyle.units.errors import CheckpointError

from .. import published
from ..published import ENCODERS, REFUSED, USABLE, install, layout, meta_tensors, renamed, shapes_of

ANY = Path("any-name.safetensors")
PUBLISHED_SIZES = {
    "ip-adapter_sdxl": "ip-adapter_sdxl.safetensors",
    "ip-adapter_sdxl_vit-h": "ip-adapter_sdxl_vit-h.safetensors",
    "ip-adapter-plus_sdxl_vit-h": "ip-adapter-plus_sdxl_vit-h.safetensors",
    "encoder_vit-h_huggingface": "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    "encoder_vit-bigg_huggingface": "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
}


def test_there_is_a_layout_of_every_kind() -> None:
    assert (len(USABLE), len(REFUSED), len(ENCODERS)) == (5, 8, 8)


@pytest.mark.parametrize("name", USABLE)
def test_usable_adapter_is_recognised_from_the_table_of_names_alone(name: str, tmp_path: Path) -> None:
    info, expected = inspect_adapter(install(name, tmp_path)), layout(name)["expect"]
    assert info.name == name
    assert (info.variant, info.tokens, info.cross_attention_dim) == (expected["variant"], expected["tokens"], 2048)
    assert info.feature == Feature(*expected["feature"])
    assert info.feature.encoder_name.startswith(expected["encoder"])


@pytest.mark.parametrize("name", USABLE)
def test_usable_adapter_has_seventy_layers_of_sdxl_widths(name: str) -> None:
    widths = identify(ANY, shapes_of(name)).layer_widths
    narrow = {0, 1, 2, 3, *range(54, 60)}  # down_blocks.1 and up_blocks.1
    assert widths == {index: 640 if index in narrow else 1280 for index in range(70)}


@pytest.mark.parametrize("name", USABLE)
def test_projection_takes_exactly_the_published_keys(name: str) -> None:
    info, shapes = identify(ANY, shapes_of(name)), shapes_of(name)
    own = {key: shapes[full] for key, full in info.projection_names.items()}
    with torch.device("meta"):
        base = info.variant == "base"
        module = ImageProjModel(info.feature.width, 2048, info.tokens) if base else Resampler(own, 2048)
    module.load_state_dict(meta_tensors(own), strict=True, assign=True)
    assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == own


@pytest.mark.parametrize("name", REFUSED)
def test_other_kinds_are_refused_by_name_and_reason(name: str, tmp_path: Path) -> None:
    path, expected = install(name, tmp_path), layout(name)["expect"]
    with pytest.raises(CheckpointError) as caught:
        inspect_adapter(path)
    assert path.name in caught.value.message
    assert expected["refused"] in caught.value.message
    assert expected["reason"] in caught.value.message


@pytest.mark.parametrize("projection", ["image_proj.", "image_proj_model."])
@pytest.mark.parametrize("layers", ["ip_adapter.", "adapter_modules."])
@pytest.mark.parametrize("name", USABLE)
def test_all_four_prefixes_mean_the_same(name: str, projection: str, layers: str) -> None:
    shapes = renamed(renamed(shapes_of(name), "image_proj.", projection), "ip_adapter.", layers)
    plain, other = identify(ANY, shapes_of(name)), identify(ANY, shapes)
    assert other.projection_names.keys() == plain.projection_names.keys()
    assert set(other.projection_names.values()) | set(other.layer_names.values()) == shapes.keys()
    assert (other.variant, other.feature, other.tokens) == (plain.variant, plain.feature, plain.tokens)
    assert other.layer_widths == plain.layer_widths


def test_adapter_with_the_style_block_alone_is_recognised() -> None:
    style = {f"ip_adapter.{number}.to_{kind}_ip.weight" for number in range(69, 89, 2) for kind in "kv"}
    shapes = {key: s for key, s in shapes_of("ip-adapter_sdxl").items() if "to_" not in key or key in style}
    assert identify(ANY, shapes).layer_widths == dict.fromkeys(range(34, 44), 1280)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_is_recognised_from_the_table_of_names_alone(name: str, tmp_path: Path) -> None:
    info, expected = inspect_encoder(install(name, tmp_path)), layout(name)["expect"]
    assert {**info.config, "layout": info.layout, "prefix": info.prefix} == expected
    assert info.gives(Feature("pooled", expected["projection_dim"]))
    assert info.gives(Feature("hidden", expected["hidden_size"]))
    assert not info.gives(Feature("hidden", expected["projection_dim"]))


@pytest.mark.parametrize("name", [name for name in ENCODERS if name.endswith("huggingface")])
def test_encoder_layout_is_that_of_transformers_own_class(name: str, tmp_path: Path) -> None:
    config = inspect_encoder(install(name, tmp_path)).config
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
    own = {key: tuple(value.shape) for key, value in model.state_dict().items() if "position_ids" not in key}
    assert own == {key: shape for key, shape in shapes_of(name).items() if "position_ids" not in key}


@pytest.mark.parametrize(("name", "file_name"), PUBLISHED_SIZES.items())
def test_layout_explains_the_published_size_of_the_file(name: str, file_name: str, tmp_path: Path) -> None:
    made, real = install(name, tmp_path).stat().st_size, DOWNLOADS[file_name].size
    assert abs(real - made) < 40_000  # the table of names may be written differently, the tensors may not


def test_patterns_stand_for_all_their_keys() -> None:
    assert list(published.expand("a.{0-1}.{x,y}")) == ["a.0.x", "a.0.y", "a.1.x", "a.1.y"]


@pytest.mark.parametrize("context", [768, 1024])
def test_an_sdxl_layout_is_not_taken_for_an_older_family_by_its_context_width(context: int) -> None:
    """A narrow model with SDXL's blocks may share its context width with SD 1.5 or SD 2, but not its layers."""
    wide = shapes_of("ip-adapter_sdxl")
    narrow = {
        key: (4 * context, *shape[1:]) if ".proj." in key else (*shape[:-1], context) for key, shape in wide.items()
    }
    info = identify(ANY, narrow)
    assert (info.cross_attention_dim, info.tokens, len(info.layer_widths)) == (context, 4, 70)
