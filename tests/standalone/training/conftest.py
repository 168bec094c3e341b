"""A tiny SDXL, its encoder, and folders of captioned pictures to learn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_instantstyle.standalone.training import Settings, materials

from ...tiny import picture, vision_model
from ...tiny.pipelines import SIDE, tiny_pipeline

CAPTIONS = ("a cat on the roof", "a red rabbit", "the roof, the cat")
SettingsMaker = Callable[..., Settings]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of few layers and one of all seventy, and an encoder. Not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    for name, depths in (("shallow", (1, 2)), ("sdxl", (2, 10))):
        tiny_pipeline(folder / "tokenizer", depths).save_pretrained(folder / name, safe_serialization=True)
    vision_model().save_pretrained(folder / "encoder", safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of other shapes, each with a caption beside it. Not to be changed."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 5)


def write_pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture(number, (SIDE + 3 * number, SIDE + 8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(CAPTIONS[number % len(CAPTIONS)] + "\n", "utf-8")
    return folder


@pytest.fixture(scope="session")
def opened() -> dict[str, Any]:
    return {}


@pytest.fixture
def opened_once(models: Path, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny bases are read from disk once: a training leaves what is frozen as it is; that has its own test."""
    read = materials.open_frozen

    def open_once(settings: Settings, place: materials.Place) -> Any:
        if Path(settings.base).parent != models:
            return read(settings, place)
        key = f"{settings.base} {place.device} {place.dtype}"
        opened[key] = opened.get(key) or read(settings, place)
        return opened[key]

    monkeypatch.setattr(materials, "open_frozen", open_once)


@pytest.fixture
def settings(models: Path, pictures: Path, tmp_path: Path, opened_once: None) -> SettingsMaker:
    """A short training of the style block; whatever is given changes it."""

    def made(**changes: Any) -> Settings:
        given: dict[str, Any] = {"base": models / "shallow", "encoder": models / "encoder", "data": pictures}
        given |= {"out": tmp_path / "run", "steps": 4, "batch": 2, "rate": 1e-2, "cpu": True, "quiet": True}
        return Settings(**{**given, **changes})

    return made
