"""Model files are found where people keep them: in the settings' folders and in those given at the start."""

from __future__ import annotations

import shutil
from unittest import mock

import pytest
from live_world import as_base64, picture

UNIT = {"image": as_base64(picture(0)), "adapter": "elsewhere"}


@pytest.fixture
def elsewhere(world, tmp_path):
    shutil.copy(world.adapter("tiny-base"), tmp_path / "elsewhere.safetensors")
    return tmp_path


def test_an_adapter_nowhere_known_is_not_found(webui, elsewhere):
    assert webui.txt2img(UNIT).status == 404


def test_a_folder_in_the_settings_is_looked_into(webui, elsewhere):
    lines = f"/nowhere\n  {elsewhere}  \n"
    assert webui.txt2img(UNIT, options={"instantstyle_adapter_dirs": lines}).status == 200


def test_a_folder_on_the_command_line_is_looked_into(webui, elsewhere):
    from modules import shared

    with mock.patch.object(shared.cmd_opts, "instantstyle_dir", [str(elsewhere)]):
        assert webui.txt2img(UNIT).status == 200


@pytest.mark.parametrize("name", ["ipadapter", "ip-adapter"])
def test_the_folders_of_other_programs_are_looked_into(webui, world, elsewhere, name):
    folder = world.folder / "models" / name
    shutil.copytree(elsewhere, folder)
    try:
        assert webui.txt2img(UNIT).status == 200
    finally:
        shutil.rmtree(folder)
