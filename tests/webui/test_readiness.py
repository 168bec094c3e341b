"""What the panel says before anything is generated, and what it offers to download."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_instantstyle.files.installed import ModelFiles
from lib_instantstyle.webui.panel.readiness import (
    FIRST_ADAPTER,
    FIRST_ENCODER,
    MOST_REFUSED,
    Readiness,
    download_all,
    readiness,
)

from ..published import install
from ..tiny import unets
from ..tiny.clip import POOLED, clip_model

sdxl_unet: Callable[[], Any] = unets.sdxl_unet
sd15_unet: Callable[[], Any] = unets.sd15_unet


def files(adapters: Path, encoders: Path) -> ModelFiles:
    return ModelFiles(lambda: [adapters], lambda: [encoders])


@pytest.fixture
def installed(world: Path) -> ModelFiles:
    return files(world / "adapters", world / "encoders")


def test_with_everything_there_it_names_what_auto_takes(installed: ModelFiles) -> None:
    now = readiness(installed, sdxl_unet())
    assert (now.problems, now.downloads) == ((), ())
    assert "Auto uses" in now.notes[0]
    assert "base.safetensors" in now.notes[0]


def test_without_an_adapter_it_offers_one_with_its_encoder(world: Path, tmp_path: Path) -> None:
    now = readiness(files(tmp_path, world / "encoders"), None)
    assert "No SDXL IP-Adapter is installed" in now.problems[0]
    assert str(tmp_path) in now.problems[0]
    assert now.downloads == (FIRST_ADAPTER, FIRST_ENCODER)  # the world's encoder is a smaller one
    assert now.button_label == (
        "ip-adapter_sdxl.safetensors (0.7 GB) and CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors (3.7 GB)"
    )


def test_an_encoder_that_is_there_is_not_offered(tmp_path: Path) -> None:
    install("encoder_vit-bigg_huggingface", tmp_path)
    now = readiness(files(tmp_path / "none", tmp_path), None)
    assert now.downloads == (FIRST_ADAPTER,)


def test_the_encoder_of_an_adapter_that_auto_does_not_take_is_offered(tmp_path: Path) -> None:
    for name in ("ip-adapter_sdxl", "ip-adapter-plus_sdxl_vit-h", "encoder_vit-bigg_huggingface"):
        install(name, tmp_path)
    now = readiness(files(tmp_path, tmp_path), None)
    assert "Auto uses ip-adapter_sdxl" in now.notes[0]
    assert now.notes[1].startswith("ip-adapter-plus_sdxl_vit-h.safetensors: ")
    assert [one.file_name for one in now.downloads] == ["CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"]


def test_the_encoder_that_auto_lacks_is_offered(tmp_path: Path) -> None:
    install("ip-adapter_sdxl", tmp_path)
    assert readiness(files(tmp_path, tmp_path), None).downloads == (FIRST_ENCODER,)


def test_of_many_files_that_cannot_be_used_a_few_are_named_and_the_rest_counted(world: Path, tmp_path: Path) -> None:
    install("ip-adapter_sd15", tmp_path)
    (found,) = tmp_path.rglob("*.safetensors")
    for number in range(MOST_REFUSED + 1):
        shutil.copy(found, found.with_name(f"of-sd15-{number}.safetensors"))
    notes = readiness(files(tmp_path, world / "encoders"), None).notes
    assert len([note for note in notes if "SD 1.5" in note]) == MOST_REFUSED
    assert sum(note.startswith("2 more adapter files") for note in notes) == 1


def test_downloads_say_how_far_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    monkeypatch.setattr("lib_instantstyle.webui.panel.readiness.fetch", lambda one, folder, tell: tell(0.5, one.kind))
    folders = {"adapter": tmp_path, "encoder": tmp_path}
    download_all((FIRST_ADAPTER, FIRST_ENCODER), folders, lambda share, text: heard.append((share, text)))
    assert heard == [(0.5, "adapter"), (0.5, "encoder")]


def test_without_the_encoder_it_says_which_one(world: Path, tmp_path: Path) -> None:
    now = readiness(files(world / "adapters", tmp_path), None)
    assert now.problems[0].startswith(
        f"The adapter needs a CLIP vision model of pooled width {POOLED}, and none is installed."
    )
    assert now.notes == ()


def test_an_adapter_whose_text_tower_is_missing_is_noted(installed: ModelFiles, world: Path) -> None:
    now = readiness(installed, sdxl_unet(), POOLED + 1)
    assert (now.problems, now.downloads) == ((), ())
    assert "Auto uses" in now.notes[0]
    assert "needs the text encoder" in now.notes[1]
    assert str(world / "encoders") in now.notes[1]


@pytest.mark.parametrize("text_width", [POOLED, None])
def test_a_text_tower_that_fits_or_cannot_be_known_is_not_noted(installed: ModelFiles, text_width: int | None) -> None:
    assert len(readiness(installed, sdxl_unet(), text_width).notes) == 1


def test_a_file_with_the_text_tower_ends_the_note(installed: ModelFiles, world: Path, tmp_path: Path) -> None:
    clip_model().save_pretrained(tmp_path / "full", safe_serialization=True)
    now = readiness(files(world / "adapters", tmp_path), sdxl_unet(), POOLED + 1)
    assert len(now.notes) == 1


@pytest.mark.parametrize("has_files", [True, False])
def test_a_checkpoint_of_another_family_is_named(world: Path, tmp_path: Path, has_files: bool) -> None:
    folder = world if has_files else tmp_path
    now = readiness(files(folder / "adapters", folder / "encoders"), sd15_unet())
    assert "has the blocks of SD 1.5 or SD 2" in now.problems[0]
    assert not any("Auto uses" in note for note in now.notes)


def test_what_it_says_is_escaped() -> None:
    assert "&lt;script&gt;" in Readiness(("<script>",), (), ()).as_html()
