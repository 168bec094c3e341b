"""The HTTP API: our endpoints, and generation through the WebUI's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib_instantstyle import __version__
from lib_instantstyle.reference.analysis import Analysis, Meter, Parts
from lib_instantstyle.units.unit import FIELDS

from ..published import install
from ..tiny import encoded, vision_model
from ..tiny.clip import POOLED
from .seen import unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from fastapi.testclient import TestClient

from .fakes import A1111

OURS = ("version", "adapters", "presets", "unit")


@pytest.fixture
def client(web: A1111) -> TestClient:
    return TestClient(web.app())


def txt2img(client: TestClient, *args: Any) -> Any:
    return client.post("/sdapi/v1/txt2img", json={"alwayson_scripts": {"instantstyle": {"args": list(args)}}})


def test_a_unit_in_the_payload_styles(client: TestClient, web: A1111) -> None:
    answer = txt2img(client, unit())
    assert answer.status_code == 200
    assert answer.json()["images"] == [encoded(image) for image in web.generate(unit()).images]
    assert "InstantStyle 1" in answer.json()["infotexts"][0]


def test_a_payload_without_us_is_plain(client: TestClient, web: A1111) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={})
    assert answer.json()["images"] == [encoded(image) for image in web.plain().images]


@pytest.mark.parametrize(
    ("args", "status", "error", "field"),
    [
        ([unit(adapter="nothing")], 404, "AdapterNotFoundError", "adapter"),
        ([unit(weight=9)], 422, "UnitError", "weight"),
        ([unit(wieght=1)], 422, "UnitError", "wieght"),
        ([{"image": "not base64"}], 422, "PictureError", "image"),
        (["a string"], 422, "UnitError", None),
        ([{}], 422, "UnitError", "image"),
        ([unit(content_prompt="a rabbit", content_method="nothing")], 422, "UnitError", "content_method"),
    ],
)
def test_a_refusal_is_an_answer_that_names_unit_and_field(
    client: TestClient, args: list[Any], status: int, error: str, field: str | None
) -> None:
    answer = txt2img(client, *args)
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["error"], detail["unit"], detail["field"]) == (status, error, 1, field)
    assert detail["message"]


def test_after_a_refusal_the_next_job_is_well(client: TestClient) -> None:
    txt2img(client, unit(adapter="nothing"))
    assert txt2img(client, unit()).status_code == 200


def test_no_answer_tells_a_path_of_the_server(client: TestClient, web: A1111) -> None:
    answers = [client.get(f"/instantstyle/{name}") for name in OURS]
    answers += [txt2img(client, unit(adapter="nothing")), client.post("/instantstyle/analyze", json={"image": 1})]
    for answer in answers:
        assert str(web.models_path) not in answer.text
        assert str(web.data_path) not in answer.text


def test_the_version(client: TestClient) -> None:
    assert client.get("/instantstyle/version").json() == {"version": __version__}


def test_adapters_come_with_what_they_need(client: TestClient, web: A1111) -> None:
    found = client.get("/instantstyle/adapters").json()
    by_name = {one["name"]: one for one in found["adapters"]}
    assert set(by_name) == {"base", "plus"}
    assert by_name["base"] == {**by_name["base"], "variant": "base", "tokens": 4, "encoder_installed": True}
    assert by_name["plus"] == {**by_name["plus"], "variant": "plus", "tokens": 16, "encoder_installed": True}
    assert by_name["base"]["layers"] == 17
    assert found["refused"] == []


def test_adapters_that_are_refused_say_why(client: TestClient, web: A1111, tmp_path: Path) -> None:
    install("ip-adapter_sd15", tmp_path / "mine")
    web.cmd_opts.instantstyle_dir = [str(tmp_path / "mine")]
    refused = client.get("/instantstyle/adapters").json()["refused"]
    assert len(refused) == 1
    assert "ip-adapter_sd15" in refused[0]
    assert "SD 1.5" in refused[0]


def test_an_adapter_whose_encoder_is_missing_says_so(
    client: TestClient, web: A1111, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ControlNet").mkdir()
    (tmp_path / "ControlNet/base.safetensors").symlink_to(web.models_path / "ControlNet/base.safetensors")
    vision_model(projection_dim=2 * POOLED).save_pretrained(tmp_path / "clip_vision/other", safe_serialization=True)
    monkeypatch.setattr("modules.paths.models_path", str(tmp_path))
    found = client.get("/instantstyle/adapters").json()["adapters"]
    assert [one["encoder_installed"] for one in found] == [False]


def test_presets_name_their_blocks(client: TestClient) -> None:
    presets = {one["name"]: one for one in client.get("/instantstyle/presets").json()}
    assert presets["style"]["weighted"] == ["up_blocks.0.attentions.1"]
    assert presets["style_and_layout"]["layout_weighted"] == ["down_blocks.2.attentions.1"]
    assert all(one["label"] and one["source"] for one in presets.values())


def test_the_unit_schema_has_every_field(client: TestClient) -> None:
    assert set(client.get("/instantstyle/unit").json()["properties"]) == set(FIELDS)


def test_analysis_names_what_a_reference_shows(client: TestClient) -> None:
    body = unit(content_prompt="a rabbit", words=3)
    answer = client.post("/instantstyle/analyze", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["words"]) == 3
    assert [one["text"] for one in answer.json()["phrases"]] == ["a rabbit"]


@pytest.mark.parametrize("body", [None, [], unit(weight=9), unit(words=-1), {}])
def test_an_analysis_that_cannot_be_made_is_refused(client: TestClient, body: Any) -> None:
    answer = client.post("/instantstyle/analyze", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]["message"]


def test_analysis_waits_for_its_turn(client: TestClient, web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def look(*_: Any, **__: Any) -> Analysis:
        held.append(web.queue_lock.locked())
        return Analysis((), Meter((), None), Parts("base", "model", None))

    monkeypatch.setattr(web.library("measuring").live_analyst(), "analyse_until", look)
    client.post("/instantstyle/analyze", json=unit())
    assert held == [True]
    assert not web.queue_lock.locked()


@pytest.mark.parametrize(
    ("given", "status"),
    [(("ann", "secret"), 200), (("bob", "a:b"), 200), (("ann", "wrong"), 401), (("eve", "secret"), 401), (None, 401)],
)
def test_endpoints_ask_for_what_api_auth_asks_for(web: A1111, given: Any, status: int) -> None:
    web.cmd_opts.api_auth = "ann:secret,bob:a:b"
    client = TestClient(web.app())
    for name in OURS:
        answer = client.get(f"/instantstyle/{name}", auth=given)
        assert answer.status_code == status
        assert status == 200 or answer.headers["WWW-Authenticate"] == "Basic"
    assert client.post("/instantstyle/analyze", json={}, auth=given).status_code == (422 if status == 200 else 401)


@pytest.mark.parametrize(("api", "nowebui", "there"), [(True, False, 200), (False, True, 200), (False, False, 404)])
def test_endpoints_are_there_with_the_api(web: A1111, api: bool, nowebui: bool, there: int) -> None:
    web.cmd_opts.api, web.cmd_opts.nowebui = api, nowebui
    assert TestClient(web.app()).get("/instantstyle/version").status_code == there
