"""However an adapter's tensors are called, they are the same adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_instantstyle.files.adapters import Adapter, identify, inspect_adapter
from lib_instantstyle.files.installed import ModelFiles
from lib_instantstyle.units.blocks import SD15_BLOCKS, SDXL_LAYERS, attention_layers, number_layers
from lib_instantstyle.units.errors import CheckpointError

from ..published import Shapes, renamed, shapes_of
from ..tiny import base_adapter, sdxl_unet
from ..tiny.clip import POOLED

ANY = Path("any.safetensors")
PLAIN = shapes_of("ip-adapter_sdxl")
STYLE = "up_blocks.0.attentions.1"
Spell = Callable[[Any, str], str]  # a layer and "to_k_ip.weight" → the name of a tensor

SPELLINGS: dict[str, Spell] = {
    "diffusers": lambda layer, end: f"ip_adapter.{layer.names[0]}.processor.{end}",
    "diffusers, a list of adapters": lambda layer, end: f"{layer.names[0]}.processor.{end.replace('.', '.0.')}",
    "diffusers, bare": lambda layer, end: f"{layer.names[0]}.processor.{end}",
    "ldm": lambda layer, end: f"ip_adapter.{layer.names[1]}.{end}",
    "ldm, in a checkpoint": lambda layer, end: f"model.diffusion_model.{layer.names[1]}.{end}",
    "wrapped": lambda layer, end: f"module.ip_adapter.{2 * layer.index + 1}.{end}",
    "wrapped inside": lambda layer, end: f"adapter_modules.module.{2 * layer.index + 1}.{end}",
    "compiled": lambda layer, end: f"ip_adapter._orig_mod.module.{2 * layer.index + 1}.{end}",
    "a dictionary more": lambda layer, end: f"state_dict.ip_adapter.{2 * layer.index + 1}.{end}",
    "two dictionaries more": lambda layer, end: f"ip_adapter.model.ip_adapter.{2 * layer.index + 1}.{end}",
}


def spelled(shapes: Shapes, spell: Spell, layers: Any = SDXL_LAYERS) -> Shapes:
    """The same shapes with the layers under other names."""
    names = {f"ip_adapter.{2 * x.index + 1}.{end}": spell(x, end) for x in layers for end in ENDS}
    return {names.get(key, key): shape for key, shape in shapes.items()}


ENDS = ("to_k_ip.weight", "to_v_ip.weight")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_layers_of_every_spelling_are_numbered_alike(spelling: str) -> None:
    shapes = spelled(PLAIN, SPELLINGS[spelling])
    found = identify(ANY, shapes)
    assert found.layer_widths == identify(ANY, PLAIN).layer_widths
    assert found.layer_names == {
        f"{2 * layer.index + 1}.{end}": SPELLINGS[spelling](layer, end) for layer in SDXL_LAYERS for end in ENDS
    }


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_style_block_alone_has_the_same_numbers_in_every_spelling(spelling: str) -> None:
    style = [layer for layer in SDXL_LAYERS if layer.block == STYLE]
    keys = {f"ip_adapter.{2 * x.index + 1}.{end}" for x in style for end in ENDS}
    shapes = {key: shape for key, shape in PLAIN.items() if key in keys or key.startswith("image_proj.")}
    found = identify(ANY, spelled(shapes, SPELLINGS[spelling], style))
    assert list(found.layer_widths) == list(range(34, 44))


@pytest.mark.parametrize("around", ["module.", "state_dict.", "model.ema.", "image_proj_model.", "adapter."])
def test_the_projection_is_found_inside_dictionaries(around: str) -> None:
    shapes = renamed(PLAIN, "image_proj.", f"{around}image_proj.module.")
    assert identify(ANY, shapes).projection_names.keys() == identify(ANY, PLAIN).projection_names.keys()


@pytest.mark.parametrize("spelling", ["diffusers", "ldm", "a dictionary more"])
def test_a_file_with_the_unets_names_gives_the_very_tensors(spelling: str, tmp_path: Path) -> None:
    """Also of a UNet shallower than SDXL's: a file with every block tells the depths itself."""
    unet = sdxl_unet()
    made = base_adapter(unet, POOLED)
    flat = {f"image_proj.{name}": tensor for name, tensor in made["image_proj"].items()}
    layers = attention_layers(unet)
    for layer in layers:
        for end in ENDS:
            flat[SPELLINGS[spelling](layer, end)] = made["ip_adapter"][f"{2 * layer.index + 1}.{end}"]
    torch.save(flat, tmp_path / "named.bin")
    adapter = Adapter(ModelFiles(lambda: [tmp_path], list).adapter("named"))
    adapter.info.check_fits(layers)
    for layer in layers:
        assert torch.equal(adapter.to_k_ip(layer), made["ip_adapter"][f"{2 * layer.index + 1}.to_k_ip.weight"])
        assert torch.equal(adapter.to_v_ip(layer), made["ip_adapter"][f"{2 * layer.index + 1}.to_v_ip.weight"])


def test_a_trainings_whole_dump_is_read_by_its_numbers(tmp_path: Path) -> None:
    """accelerate keeps the UNet with its processors, and the same processors once more in a list."""
    dump = renamed(
        spelled(PLAIN, lambda x, end: f"unet.{x.names[0]}.processor.{end}"), "image_proj.", "image_proj_model."
    )
    dump |= {f"unet.{layer.names[0]}.to_k.weight": (1280, 2048) for layer in SDXL_LAYERS}
    dump |= renamed(
        {key: s for key, s in PLAIN.items() if key.startswith("ip_adapter.")}, "ip_adapter.", "adapter_modules."
    )
    found = identify(ANY, dump)
    assert len(found.layer_widths) == 70
    assert all(key.startswith("adapter_modules.") for key in found.layer_names.values())


def test_the_same_adapter_inside_fewer_dictionaries_goes_first() -> None:
    both = {**PLAIN, **{f"ema.{key}": shape for key, shape in PLAIN.items()}}
    assert identify(ANY, both).layer_names == identify(ANY, PLAIN).layer_names


def test_two_adapters_side_by_side_are_refused() -> None:
    both = {f"{around}.{key}": shape for key, shape in PLAIN.items() for around in ("ema", "model")}
    with pytest.raises(CheckpointError, match=r"any\.safetensors holds several adapters"):
        identify(ANY, both)


def test_an_sd15_adapter_with_its_unets_names_is_called_one() -> None:
    layers = number_layers(SD15_BLOCKS, [1] * 16)
    shapes = spelled(shapes_of("ip-adapter_sd15"), SPELLINGS["diffusers"], layers)
    with pytest.raises(CheckpointError, match=r"is an SD 1\.5 adapter"):
        identify(ANY, shapes)


def test_a_lora_in_the_processors_is_not_called_a_face_adapter() -> None:
    shapes = {f"unet.{x.names[0]}.processor.to_q_lora.down.weight": (4, 1280) for x in SDXL_LAYERS}
    with pytest.raises(CheckpointError, match="not an IP-Adapter"):
        identify(ANY, shapes)


@pytest.mark.parametrize("around", ["", "module.", "state_dict."])
@pytest.mark.parametrize("name", ["ip-adapter-faceid_sdxl", "instantid_ip-adapter", "kolors_ip-adapter-plus"])
def test_other_kinds_are_known_inside_dictionaries(name: str, around: str) -> None:
    shapes = {f"{around}{key}": shape for key, shape in shapes_of(name).items()}
    with pytest.raises(CheckpointError, match=r"FaceID|InstantID|Kolors"):
        identify(ANY, shapes)


@pytest.mark.parametrize("layer", ["up_blocks.9.attentions.0", "down_blocks.2.attentions.1.x", "middle_block.7"])
def test_layers_of_another_unet_are_refused(layer: str) -> None:
    odd = {f"{layer}.transformer_blocks.0.attn2.processor.{end}": (1280, 2048) for end in ENDS}
    projection = {key: shape for key, shape in PLAIN.items() if key.startswith("image_proj.")}
    with pytest.raises(CheckpointError, match=r"any\.safetensors"):
        identify(ANY, {**projection, **odd})


def test_names_made_to_keep_a_reader_busy_are_passed_over() -> None:
    long = {"down_blocks." * 50_000 + f"{number}.to_k_ip.weight": (1, 1) for number in range(3)}
    assert identify(ANY, {**PLAIN, **long}).layer_names == identify(ANY, PLAIN).layer_names


def test_a_nested_pickle_with_everything_wrapped_is_read(tmp_path: Path) -> None:
    made = base_adapter(sdxl_unet(), POOLED)
    tree: dict[str, Any] = {"state_dict": {f"module.{part}": tensors for part, tensors in made.items()}, "epoch": 3}
    torch.save(tree, tmp_path / "wrapped.ckpt")
    info = inspect_adapter(tmp_path / "wrapped.ckpt")
    projection: dict[str, Tensor] = Adapter(info).projection().state_dict()
    assert torch.equal(projection["proj.weight"], made["image_proj"]["proj.weight"])
