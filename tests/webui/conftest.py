"""A running WebUI for each test: fakes of its modules, the real script, the real gradio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..tiny import base_adapter, plus_adapter, save_adapter, vision_model
from ..tiny.clip import HIDDEN, POOLED
from ..tiny.unets import LdmUnet

if TYPE_CHECKING:
    from .fakes import A1111


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The WebUI's models folder, with adapters for its tiny checkpoint and their encoder. Not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    save_adapter(base_adapter(LdmUnet(), POOLED), folder / "ControlNet/base.safetensors")
    save_adapter(plus_adapter(LdmUnet(), HIDDEN), folder / "ipadapter/plus.safetensors")
    vision_model().save_pretrained(folder / "clip_vision/tiny", safe_serialization=True)
    return folder


@pytest.fixture
def web(models: Path, tmp_path: Path) -> Iterator[A1111]:
    """AUTOMATIC1111's WebUI with its pages built. Nothing may have been swallowed unless a test looks at it."""
    fakes = pytest.importorskip("tests.webui.fakes", reason="gradio comes with the WebUI's versions")
    with fakes.A1111(models, tmp_path).running() as running:
        yield running
    assert not running.swallowed
