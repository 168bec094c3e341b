"""A tiny SDXL with all seventy layers, its adapters and its encoder, on disk and in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_instantstyle.hosts.standalone import Job, StandaloneHost
from lib_instantstyle.session import StyleSession

from ..tiny import base_adapter, plus_adapter, save_adapter, vision_model
from ..tiny.clip import HIDDEN, POOLED
from ..tiny.pipelines import SIDE, tiny_controlnet, tiny_pipeline

DEPTHS = (2, 10)  # SDXL's own: seventy layers


@pytest.fixture(scope="session")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One pipeline for all tests: whoever styles it leaves no trace, or the next test fails."""
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"), DEPTHS)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, pipe: Any) -> Path:
    """The pipeline, a ControlNet, adapters and an encoder as files. Not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    save_adapter(base_adapter(pipe.unet, POOLED), folder / "adapters/base.safetensors")
    save_adapter(plus_adapter(pipe.unet, HIDDEN), folder / "adapters/plus.safetensors")
    vision_model().save_pretrained(folder / "encoder", safe_serialization=True)
    pipe.save_pretrained(folder / "sdxl", safe_serialization=True)
    tiny_controlnet(pipe.unet).save_pretrained(folder / "controlnet", safe_serialization=True)
    return folder


@pytest.fixture
def host(pipe: Any, models: Path, tmp_path: Path) -> StandaloneHost:
    made = StandaloneHost(
        pipe,
        [models / "adapters"],
        [models / "encoder"],
        controlnet=tiny_controlnet(pipe.unet),
        cache=tmp_path / "cache",
    )
    assert isinstance(made.session, StyleSession)
    return made


@pytest.fixture
def job() -> Callable[..., Job]:
    return lambda **fields: Job(**{"prompt": "a cat on the roof", "width": SIDE, "height": SIDE, "steps": 2, **fields})
