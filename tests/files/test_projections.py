"""Image projections against diffusers' own, on the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.files.adapters import Adapter, inspect_adapter
from lib_instantstyle.files.projections import ImageProjModel, Resampler

from ..tiny import CONTEXT, base_adapter, plus_adapter, save_adapter, sdxl_unet
from ..tiny.clip import HIDDEN, PATCHES, POOLED

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 through four layers of attention; outputs are of size one


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return sdxl_unet()


def ours(adapter: dict[str, dict[str, Tensor]], folder: Path) -> nn.Module:
    return Adapter(inspect_adapter(save_adapter(adapter, folder / "adapter.safetensors"))).projection()


def theirs(unet: nn.Module, adapter: dict[str, dict[str, Tensor]]) -> nn.Module:
    return unet._convert_ip_adapter_image_proj_to_diffusers(dict(adapter["image_proj"]), low_cpu_mem_usage=False)


@torch.no_grad()
@pytest.mark.parametrize("pictures", [1, 3])
def test_base_projection_equals_diffusers(unet: nn.Module, pictures: int, tmp_path: Path) -> None:
    adapter, embeds = base_adapter(unet, POOLED), torch.randn(pictures, POOLED)
    tokens = ours(adapter, tmp_path)(embeds)
    assert tokens.shape == (pictures, 4, CONTEXT)
    torch.testing.assert_close(tokens, theirs(unet, adapter)(embeds), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("pictures", [1, 3])
def test_resampler_equals_diffusers(unet: nn.Module, pictures: int, tmp_path: Path) -> None:
    adapter, hidden = plus_adapter(unet, HIDDEN), torch.randn(pictures, PATCHES, HIDDEN)
    tokens = ours(adapter, tmp_path)(hidden)
    assert tokens.shape == (pictures, 16, CONTEXT)
    torch.testing.assert_close(tokens, theirs(unet, adapter)(hidden), **CLOSE)


@torch.no_grad()
def test_base_projection_is_the_written_formula() -> None:
    model, embeds = ImageProjModel(6, 5, tokens=3), torch.randn(2, 6)
    nn.init.normal_(model.norm.weight)
    nn.init.normal_(model.norm.bias)
    wide = (embeds @ model.proj.weight.T + model.proj.bias).reshape(2, 3, 5)
    centred = wide - wide.mean(-1, keepdim=True)
    normed = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(model(embeds), normed * model.norm.weight + model.norm.bias, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("make", ["base", "plus"])
def test_pictures_do_not_touch_each_other(unet: nn.Module, make: str, tmp_path: Path) -> None:
    adapter = base_adapter(unet, POOLED) if make == "base" else plus_adapter(unet, HIDDEN)
    embeds = torch.randn(3, POOLED) if make == "base" else torch.randn(3, PATCHES, HIDDEN)
    project = ours(adapter, tmp_path)
    torch.testing.assert_close(project(embeds), torch.cat([project(one[None]) for one in embeds]), **CLOSE)


@torch.no_grad()
def test_resampler_does_not_care_about_the_order_of_patches(unet: nn.Module, tmp_path: Path) -> None:
    project, hidden = ours(plus_adapter(unet, HIDDEN), tmp_path), torch.randn(1, PATCHES, HIDDEN)
    torch.testing.assert_close(project(hidden.flip(1)), project(hidden), **CLOSE)


def test_projection_is_ready_for_use_only(unet: nn.Module, tmp_path: Path) -> None:
    project = ours(plus_adapter(unet, HIDDEN), tmp_path)
    assert isinstance(project, Resampler)
    assert not project.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in project.parameters())
