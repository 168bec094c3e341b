"""Where files are looked for: our settings and ControlNet's, as people write them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ..published import install
from .seen import same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111

UNIT: dict[str, Any] = {"adapter": "elsewhere"}
ADAPTERS = ("instantstyle_adapter_dirs", "control_net_models_path")
ENCODERS = ("instantstyle_encoder_dirs", "control_net_modules_path")


@pytest.fixture
def elsewhere(models: Path, tmp_path: Path) -> Path:
    """A folder with an adapter that no other has."""
    folder = tmp_path / "my models"
    folder.mkdir()
    shutil.copy(models / "ControlNet/base.safetensors", folder / "elsewhere.safetensors")
    return folder


def adapters(web: A1111) -> list[str]:
    return [info.name for info in web.library("hosts.live").live_host().files.adapters.usable()]


WRITTEN = ["{}", "  {}  ", '"{}"', "'{}'", "“{}”", '" {} "', "\"'{}'\"", "/nowhere\n{}\n", '/nowhere\n\n"{}"']


@pytest.mark.parametrize("written", WRITTEN)
def test_a_folder_of_our_settings_is_looked_into_however_it_was_pasted(
    web: A1111, elsewhere: Path, written: str
) -> None:
    assert "elsewhere" not in adapters(web)
    web.opts.data["instantstyle_adapter_dirs"] = written.format(elsewhere)
    assert "elsewhere" in adapters(web)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("instantstyle_dir", lambda folder: [str(folder)]),
        ("instantstyle_dir", lambda folder: [f'"{folder}"']),
        ("controlnet_dir", str),
        ("controlnet_dir", lambda folder: folder),
        ("controlnet_dir", lambda folder: f'"{folder}"'),
        ("controlnet_dirs", lambda folder: ["/nowhere", str(folder)]),
    ],
)
def test_folders_given_at_the_start_are_looked_into(web: A1111, elsewhere: Path, place: str, value: Any) -> None:
    setattr(web.cmd_opts, place, value(elsewhere))
    assert "elsewhere" in adapters(web)


def test_a_folder_given_at_the_start_may_hold_encoders_too(web: A1111, elsewhere: Path) -> None:
    shutil.copytree(web.models_path / "clip_vision/tiny", elsewhere / "tiny")
    web.cmd_opts.instantstyle_dir = [str(elsewhere)]
    found = web.library("hosts.live").live_host().files.encoders.usable()
    assert elsewhere / "tiny/model.safetensors" in [info.path for info in found]


@pytest.mark.parametrize("kind", [str, Path])
def test_files_of_the_controlnet_that_comes_with_forge_are_found_where_they_are(
    web: A1111, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    """Its own options name these folders; its IP-Adapter fetches the encoders among preprocessors of all kinds."""
    theirs, encoder = elsewhere / "CLIP-ViT-bigG.safetensors", web.models_path / "clip_vision/tiny/model.safetensors"
    shutil.copy(encoder, theirs)
    (elsewhere / "depth.pth").write_text("no model")
    folders = SimpleNamespace(controlnet_dir=kind(elsewhere), preprocessor_dir=kind(elsewhere))
    monkeypatch.setitem(sys.modules, "modules_forge.shared", folders)
    files = web.library("hosts.live").live_host().files
    assert "elsewhere" in adapters(web)
    looked_at = [*files.encoders.paths()]
    assert theirs in looked_at
    assert elsewhere / "depth.pth" not in looked_at


def test_a_folder_below_ones_home_is_looked_into(web: A1111, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(elsewhere.parent))
    web.opts.data["instantstyle_adapter_dirs"] = f"~/{elsewhere.name}"
    assert "elsewhere" in adapters(web)


def test_a_folder_named_twice_is_said_to_be_where_it_was_named_first(web: A1111) -> None:
    web.opts.data["instantstyle_adapter_dirs"] = web.cmd_opts.controlnet_dir = "/nowhere"
    named = web.library("hosts.folders").configured_folders()
    assert named[Path("/nowhere")] == "Settings → InstantStyle"


def test_the_extra_path_of_controlnets_settings_is_looked_into(web: A1111, elsewhere: Path) -> None:
    plain = web.plain()
    web.opts.data["control_net_models_path"] = str(elsewhere)
    assert not same(web.generate(unit(**UNIT)).images, plain.images)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("place", ["control_net_modules_path", "controlnet_annotator_models_path"])
def test_encoders_are_found_where_controlnet_keeps_its_annotators(web: A1111, relative: bool, place: str) -> None:
    folder = web.data_path / "annotators"
    shutil.copytree(web.models_path / "clip_vision", folder / "clip_vision")
    value = "annotators" if relative else str(folder)
    if place.startswith("control_net"):
        web.opts.data[place] = value
    else:
        setattr(web.cmd_opts, place, value)
    found = web.library("hosts.live").live_host().files.encoders.usable()
    assert folder / "clip_vision/tiny/model.safetensors" in [info.path for info in found]


@pytest.mark.parametrize("option", [*ADAPTERS, *ENCODERS])
def test_a_folder_that_does_not_exist_is_said_so_in_the_panel_and_to_whom_misses_a_file(
    web: A1111, option: str
) -> None:
    web.opts.data[option] = "/home/alice/webui/old models"
    files = web.library("hosts.live").live_host().files
    place = "Settings → ControlNet" if option.startswith("control_net") else "Settings → InstantStyle"
    sentence = f"The folder webui/old models, named in {place}, does not exist."
    panel = web.library("panel.readiness").readiness(files, None)
    assert sentence in panel.notes
    with pytest.raises(Exception, match=sentence):
        files.adapter("nothing")


def test_a_missing_file_is_said_once_with_the_folders_that_are_missing(web: A1111, tmp_path: Path) -> None:
    web.opts.data["instantstyle_adapter_dirs"] = "/nowhere/at all"
    folders = web.library("hosts.folders")
    files = web.library("hosts.webui_host").ModelFiles(
        lambda: [tmp_path / "none"], lambda: [tmp_path / "none"], folders.configured_folders, folders.said
    )
    panel = web.library("panel.readiness").readiness(files, None)
    said = " ".join((*panel.problems, *panel.notes))
    assert "No SDXL IP-Adapter is installed" in panel.problems[0]
    assert said.count("nowhere/at all, named in Settings → InstantStyle, does not exist.") == 1


def test_a_missing_folder_is_said_once_beside_an_adapter_without_its_encoder(web: A1111, tmp_path: Path) -> None:
    for name in ("ip-adapter_sdxl", "ip-adapter-plus_sdxl_vit-h", "encoder_vit-bigg_huggingface"):
        install(name, tmp_path)
    web.opts.data["instantstyle_encoder_dirs"] = "/nowhere/at all"
    folders = web.library("hosts.folders")
    files = web.library("hosts.webui_host").ModelFiles(
        lambda: [tmp_path], lambda: [tmp_path], folders.configured_folders, folders.said
    )
    notes = web.library("panel.readiness").readiness(files, None).notes
    assert sum(note.count("nowhere/at all") for note in notes) == 1


@pytest.mark.parametrize("value", ["~nobody-by-this-name/models", "x" * 5000, "C:\\models\\ipadapter", '"', "''"])
def test_a_setting_of_nonsense_stops_nothing(web: A1111, value: str) -> None:
    for option in (*ADAPTERS, *ENCODERS):
        web.opts.data[option] = value
    assert "base" in adapters(web)
    web.generate(unit())


def test_no_answer_names_a_whole_path_of_this_machine(web: A1111, models: Path) -> None:
    files = web.library("hosts.live").live_host().files
    feature = type(next(iter(files.adapters.usable())).feature)("pooled", 1280)
    for ask in (lambda: files.adapter("nothing"), lambda: files.encoder(feature)):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of several kinds
            ask()
        assert str(models) not in str(caught.value)
    assert "models/clip_vision" in str(caught.value).replace(models.name, "models")
