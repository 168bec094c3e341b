"""A LoRA's pairs on single layers: equal to diffusers' own, linear in the weight, and out again to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lib_instantstyle.files.loras import Lora, inspect_lora
from lib_instantstyle.style.low_rank import AdaptedLayer, LowRank, linear_widths
from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.units.schedule import Window

from ..tiny import sdxl_unet, unet_inputs
from ..tiny.loras import Pairs, linear_paths, tiny_pairs, write_lora

STYLE, CONTENT = "up_blocks.0.attentions.1", "up_blocks.0.attentions.0"
OURS = ModelCall((False, True), progress=0.5)
WINDOW = Window(0.5, 1.0)


@contextmanager
def adapted(unet: nn.Module, pairs: Pairs, scale: float, call: ModelCall = OURS) -> Iterator[None]:
    """While it lasts, the UNet's layers have these pairs."""
    with ExitStack() as stack:
        for path, (down, up) in pairs.items():
            layer = AdaptedLayer(unet.get_submodule(path), (LowRank(down, up * scale, WINDOW),), call)
            layer.attach()
            stack.callback(layer.detach)
        yield


@torch.no_grad()
def predicted(unet: UNet2DConditionModel) -> Tensor:
    inputs = tree_map_only(Tensor, lambda x: x.to(unet.dtype) if x.is_floating_point() else x, unet_inputs(2))
    return unet(**inputs).sample


def test_a_whole_file_equals_diffusers_own_loading(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    unet = sdxl_unet().double()
    path = write_lora(tmp_path / "x.safetensors", tiny_pairs(unet, linear_paths(unet, STYLE, CONTENT)), "PEFT")
    lora = Lora(inspect_lora(path))
    pairs = {target.paths[0]: lora.read(target) for target in lora.info.pairs}
    with adapted(unet, pairs, 0.7):
        ours = predicted(unet)
    unet.load_lora_adapter(load_file(path), prefix="unet", adapter_name="theirs")
    unet.set_adapters(["theirs"], [0.7])
    unet.double()  # loaded as float32
    torch.testing.assert_close(ours, predicted(unet), rtol=1e-5, atol=1e-6)


def test_it_equals_the_merged_weight() -> None:
    unet, merged = sdxl_unet().double(), sdxl_unet().double()
    pairs = tiny_pairs(unet, linear_paths(unet, STYLE))
    for path, (down, up) in pairs.items():
        merged.get_submodule(path).weight.data += 0.5 * up.double() @ down.double()
    with adapted(unet, pairs, 0.5):
        torch.testing.assert_close(predicted(unet), predicted(merged), rtol=1e-6, atol=1e-8)


def test_its_effect_on_a_layer_is_linear_in_the_scale() -> None:
    layer, x = nn.Linear(6, 5), torch.randn(2, 3, 6)
    down, up = torch.randn(2, 6), torch.randn(5, 2)

    def effect(scale: float) -> Tensor:
        hooked = AdaptedLayer(layer, (LowRank(down, up * scale, WINDOW),), OURS)
        plain = layer(x)
        hooked.attach()
        found = layer(x) - plain
        hooked.detach()
        return found

    torch.testing.assert_close(effect(0.5), effect(1.0) / 2)
    torch.testing.assert_close(effect(2.0), effect(1.0) * 2)


def test_two_files_add_up_in_any_order() -> None:
    layer, x = nn.Linear(6, 5), torch.randn(2, 3, 6)
    one, two = (LowRank(torch.randn(2, 6), torch.randn(5, 2), WINDOW) for _ in range(2))
    expected = layer(x) + one.product(x) + two.product(x)
    for pairs in ((one, two), (two, one)):
        hooked = AdaptedLayer(layer, pairs, OURS)
        hooked.attach()
        torch.testing.assert_close(layer(x), expected)
        hooked.detach()


def test_nothing_of_it_stays() -> None:
    unet = sdxl_unet()
    before = predicted(unet)
    with adapted(unet, tiny_pairs(unet, linear_paths(unet, STYLE)), 1.0):
        assert not torch.equal(predicted(unet), before)
    assert torch.equal(predicted(unet), before)
    assert not any(module._forward_hooks for module in unet.modules())


def test_calls_outside_the_window_and_calls_of_others_are_plain() -> None:
    unet = sdxl_unet()
    before, pairs = predicted(unet), tiny_pairs(unet, linear_paths(unet, STYLE))
    early = ModelCall((False, True), progress=0.2)
    with adapted(unet, pairs, 1.0, early):
        assert torch.equal(predicted(unet), before)
        early.progress = 0.6
        assert not torch.equal(predicted(unet), before)
    with adapted(unet, pairs, 1.0, ModelCall(None, progress=0.5)):
        assert torch.equal(predicted(unet), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_is_computed_in_the_layers_own_numbers(dtype: torch.dtype) -> None:
    layer, x = nn.Linear(6, 5).to(dtype), torch.randn(2, 3, 6).to(dtype)
    hooked = AdaptedLayer(layer, (LowRank(torch.randn(2, 6), torch.randn(5, 2), WINDOW),), OURS)
    hooked.attach()
    assert layer(x).dtype == dtype
    hooked.detach()


def test_a_layer_of_packed_numbers_has_the_widths_that_it_computes_with() -> None:
    """As bitsandbytes leaves it in Forge, whose layer has no other word of its widths."""
    packed = nn.Module()
    packed.weight = nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    packed.weight.quant_state = SimpleNamespace(shape=torch.Size((6, 4)))
    assert linear_widths(packed) == linear_widths(nn.Linear(4, 6)) == (6, 4)
