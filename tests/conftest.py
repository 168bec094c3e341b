"""Seeds, limits, and the tiny world that most tests live in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from lib_instantstyle.style.session import StyleSession

from .tiny import TinyHost, base_adapter, plus_adapter, save_adapter, sdxl_unet, vision_model
from .tiny.clip import HIDDEN, POOLED

settings.register_profile("suite", max_examples=150, deadline=None, derandomize=True)
settings.load_profile("suite")
torch.set_num_threads(1)  # the models are so small that threads only get in each other's way


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters `base`, `other` and `plus` for the tiny UNet, and their encoder. Not to be changed."""
    folder = tmp_path_factory.mktemp("world")
    unet = sdxl_unet()
    save_adapter(base_adapter(unet, POOLED), folder / "adapters/base.safetensors")
    save_adapter(base_adapter(unet, POOLED, seed=1), folder / "adapters/other.safetensors")
    save_adapter(plus_adapter(unet, HIDDEN), folder / "adapters/plus.safetensors")
    vision_model().save_pretrained(folder / "encoders/tiny", safe_serialization=True)
    return folder


@pytest.fixture
def host(world: Path, tmp_path: Path) -> TinyHost:
    """A host on the shared models with a UNet and a cache of its own."""
    return TinyHost(sdxl_unet(), world, tmp_path / "cache")


@pytest.fixture
def session(host: TinyHost) -> Iterator[StyleSession]:
    made = StyleSession(host)
    yield made
    made.detach()
