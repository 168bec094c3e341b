"""Over HTTP, with passwords, with the model parted as --medvram does it, and through a "Reload UI" press."""

from __future__ import annotations

import json

import numpy as np
import pytest
from live_webui import SETTINGS
from live_world import as_base64, from_base64, picture

UNIT = {"image": as_base64(picture(0))}
TESTER, STRANGER = ("tester", "secret"), ("tester", "guess")
PATHS = [f"/instantstyle/{name}" for name in ("version", "adapters", "presets", "unit")]


@pytest.fixture(scope="module")
def server(webui_folder, world):
    from live_server import running

    with running(webui_folder, world.folder, "--medvram", "--api-auth", ":".join(TESTER)) as started:
        wait_for_endpoints(started)
        yield started


def test_a_webui_without_gradios_queue_comes_up_too(webui_folder, world):
    from live_server import running

    with running(webui_folder, world.folder, "--no-gradio-queue") as started:
        started.wait_until(lambda: started.get("/").status_code == 200)


def wait_for_endpoints(server):
    server.wait_until(lambda: server.get(PATHS[0], TESTER).status_code == 200)


def make(server, *units):
    scripts = {"InstantStyle": {"args": list(units)}} if units else {}
    return server.post("/sdapi/v1/txt2img", {**SETTINGS, "alwayson_scripts": scripts}, TESTER)


def pixels(answer):
    return np.asarray(from_base64(answer["images"][0])).astype(int)


@pytest.mark.parametrize("path", PATHS)
def test_endpoints_ask_for_the_password(server, path):
    assert server.get(path).status_code == 401
    assert server.get(path, STRANGER).status_code == 401
    assert server.get(path, TESTER).status_code == 200


def test_analysis_asks_for_the_password_and_works_with_a_parted_model(server):
    path, body = "/instantstyle/analyze", {**UNIT, "content_prompt": "a cat", "words": 5}
    assert server.post(path, body).status_code == 401
    assert server.post(path, body, STRANGER).status_code == 401
    answer = server.post(path, body, TESTER)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["words"]) == 5
    assert [phrase["text"] for phrase in answer.json()["phrases"]] == ["a cat"]


def test_endpoints_tell_what_there_is(server, world):
    version, adapters, presets, unit = (server.get(path, TESTER).json() for path in PATHS)
    installed = {one["name"]: one for one in adapters["adapters"]}
    assert version["version"]
    assert set(installed) == {"tiny-base", "tiny-plus"}
    assert all(one["encoder_installed"] and one["layers"] == 70 for one in installed.values())
    assert [one["name"] for one in presets] == unit["properties"]["preset"]["enum"]
    assert str(world.folder) not in json.dumps([adapters, presets, unit])


def test_errors_have_their_status_and_place(server):
    for unit, status, field in [
        ({**UNIT, "weight": 9}, 422, "weight"),
        ({**UNIT, "adapter": "nope"}, 404, "adapter"),
    ]:
        answer = make(server, unit)
        assert answer.status_code == status
        assert (answer.json()["detail"]["unit"], answer.json()["detail"]["field"]) == (1, field)


def test_a_parted_model_makes_the_same_picture(server, webui):
    plain, styled = make(server).json(), make(server, UNIT).json()
    whole = webui.txt2img(UNIT).answer
    assert abs(pixels(plain) - pixels(styled)).max() > 50
    assert abs(pixels(whole) - pixels(styled)).max() <= 1
    assert "InstantStyle 1" in styled["info"]


def test_pressing_reload_ui_changes_nothing(server):
    before = make(server, UNIT).json()
    server.press_reload_ui()
    wait_for_endpoints(server)
    assert (pixels(make(server, UNIT).json()) == pixels(before)).all()
    assert server.get(PATHS[1]).status_code == 401
