"""CSGO's style branch is read as the plus adapter it is; the rest of the file is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_instantstyle.files.adapters import Adapter, identify, inspect_adapter
from lib_instantstyle.files.image_encoders import Feature
from lib_instantstyle.files.installed import ModelFiles
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.errors import CheckpointError, UnknownBlockError

from ..by_hand import CLOSE, World, attach
from ..jobs import unit
from ..published import layout, shapes_of
from ..tiny import TinyHost, sdxl_unet

ANY = Path("any.safetensors")
UP = range(24, 60)


@pytest.mark.parametrize("around", ["", "module.", "state_dict."])
def test_the_published_file_is_a_plus_adapter_of_the_up_blocks(around: str) -> None:
    shapes = {f"{around}{key}": shape for key, shape in shapes_of("csgo").items()}
    info, expected = identify(ANY, shapes), layout("csgo")["expect"]
    assert (info.variant, info.tokens, info.feature) == ("plus", expected["tokens"], Feature(*expected["feature"]))
    assert sorted(info.layer_widths) == list(UP)
    assert info.nothing_is_zeros
    assert all(f"{around}style_image_proj." in key for key in info.projection_names.values())
    assert {*info.projection_names.values(), *info.layer_names.values()} <= shapes.keys()


def test_the_content_branch_alone_is_refused() -> None:
    content = {key: shape for key, shape in shapes_of("csgo").items() if not key.startswith("style_")}
    with pytest.raises(CheckpointError, match="content branch alone"):
        identify(ANY, content)


def csgo(world: Path, folder: Path) -> TinyHost:
    """A host that has one adapter: the tiny plus one as CSGO spells it, beside another projection for content."""
    plus = load_file(str(world / "adapters/plus.safetensors"))
    style = {key.replace("image_proj.", "style_image_proj."): tensor for key, tensor in plus.items()}
    content = {key.replace("image_proj.", "content_image_proj."): 2 * t for key, t in plus.items() if "proj." in key}
    (folder / "world").mkdir()
    (folder / "world/encoders").symlink_to(world / "encoders")
    (folder / "world/adapters").mkdir()
    save_file(style | content, str(folder / "world/adapters/csgo.safetensors"))
    return TinyHost(sdxl_unet(), folder / "world", folder / "cache")


@pytest.fixture
def tiny_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny UNet's up blocks have other numbers than SDXL's."""
    layers = [layer.index for layer in attention_layers(sdxl_unet()) if layer.block.startswith("up")]
    monkeypatch.setattr("lib_instantstyle.files.adapters._CSGO_STYLE_LAYERS", range(min(layers), max(layers) + 1))


@pytest.mark.usefixtures("tiny_numbers")
def test_its_style_reaches_the_layers_with_zeros_for_nothing(world: Path, tmp_path: Path) -> None:
    session = StyleSession(csgo(world, tmp_path))
    found = attach(session, unit(adapter="csgo"))
    adapter, by_hand = Adapter(inspect_adapter(world / "adapters/plus.safetensors")), World(world)
    project = adapter.projection()
    layers = {layer.index: layer for layer in attention_layers(session.host.unet())}
    for index, pair in found.items():
        for row, states in enumerate((torch.zeros_like(by_hand.hidden(0)), by_hand.hidden(0))):
            tokens: Tensor = project(states)[0]
            torch.testing.assert_close(pair[0][row], tokens @ adapter.to_k_ip(layers[index]).T, **CLOSE)
            torch.testing.assert_close(pair[1][row], tokens @ adapter.to_v_ip(layers[index]).T, **CLOSE)
    session.detach()


@pytest.mark.usefixtures("tiny_numbers")
def test_blocks_of_its_content_branch_are_refused(world: Path, tmp_path: Path) -> None:
    session = StyleSession(csgo(world, tmp_path))
    with pytest.raises(UnknownBlockError, match="trained for other blocks"):
        session.plan([unit(adapter="csgo", preset="layout")])


@pytest.mark.usefixtures("tiny_numbers")
def test_auto_takes_it_last(world: Path, tmp_path: Path) -> None:
    host = csgo(world, tmp_path)
    folders = [tmp_path / "world/adapters", world / "adapters"]
    files = ModelFiles(lambda: folders, lambda: [world / "encoders"])
    assert files.adapter("auto").name == "base"
    assert host.files.adapter("auto").name == "csgo"
