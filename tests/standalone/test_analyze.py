"""`analyze`: words, leaks and scales of references, read with as little of a model as that takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from lib_instantstyle.files.tensor_files import SafetensorsFile
from lib_instantstyle.files.text_towers import TextTower
from lib_instantstyle.reference import embedding
from lib_instantstyle.reference.analysis import Analyst
from lib_instantstyle.reference.analysis_json import as_json, read_request
from lib_instantstyle.standalone import StandaloneHost, analysis_host
from lib_instantstyle.standalone import models as opening
from lib_instantstyle.standalone.cli.app import FAILED, OK, REFUSED, main
from lib_instantstyle.units.errors import IncompatibleModelError

from ..tiny import clip_model, picture
from ..tiny.pipelines import tokenizer

ROOT = Path(__file__).parents[2]
CONTENT = {"content_prompt": "a rabbit, a roof", "content_method": "auto", "content_scale": 0.7}
Arguments = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(opening, "_cached", lambda *_: None)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    picture(0).save(tmp_path / "wave.png")
    return tmp_path / "wave.png"


@pytest.fixture
def arguments(models: Path, reference: Path) -> Arguments:
    """`analyze` on the tiny models; more arguments come last and win."""

    def made(*more: object, adapter: str = "base", model: object = "", style: object = "") -> list[str]:
        given = ["--style", style or reference, "--adapter", models / f"adapters/{adapter}.safetensors"]
        given += ["--model", model or models / "sdxl", "--encoder", models / "encoder", "--quiet"]
        return ["analyze", *map(str, (*given, *more))]

    return made


def answered(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return json.loads(capsys.readouterr().out)["references"]


def near(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """The same words in the same order, and the same numbers but for the order of sums."""
    for name, columns in (("words", ("score",)), ("phrases", ("before", "after"))):
        assert [one["text"] for one in found[name]] == [one["text"] for one in wanted[name]]
        for column in columns:
            assert [one[column] for one in found[name]] == pytest.approx([x[column] for x in wanted[name]], abs=1e-5)
    assert found["auto_scale"] == pytest.approx(wanted["auto_scale"], abs=1e-4)


@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_the_command_says_what_an_analyst_on_the_whole_pipeline_says(
    arguments: Arguments, host: StandaloneHost, adapter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = ("--content", CONTENT["content_prompt"], "--content-method", "auto", "--content-scale", 0.7)
    assert main(arguments(*content, "--words", 5, "--json", adapter=adapter)) == OK
    (found,) = answered(capsys)
    asked = read_request({"image": picture(0), "adapter": adapter, "words": 5, **CONTENT})
    near(found, as_json(Analyst(host).analyse(asked[0], count=asked[1])))
    assert (found["reference"], found["adapter"], found["encoder"]) == ("wave", adapter, "model")


def test_of_a_checkpoint_file_the_second_text_encoder_alone_is_read(
    single_file: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        "--adapter",
        str(single_file.parent / "adapter.safetensors"),
        "--encoder",
        str(single_file.parent / "encoder"),
    ]
    seen: list[str] = []
    read = SafetensorsFile.read
    with monkeypatch.context() as patch:
        patch.setattr(SafetensorsFile, "read", lambda self, name: (seen.append(name), read(self, name))[1])
        given = ["--style", str(reference), "--model", str(single_file), *files, "--content", "a rabbit"]
        assert main(["analyze", *given, "--json", "--quiet"]) == OK
    (found,) = answered(capsys)
    assert len(found["words"]) == 24
    of_the_checkpoint = [name for name in seen if name.startswith(("model.diffusion", "first_stage", "conditioner."))]
    assert of_the_checkpoint
    assert all(name.startswith("conditioner.embedders.1.") for name in of_the_checkpoint)


def test_the_tower_in_a_checkpoint_file_says_what_the_pipelines_second_text_encoder_says(single_file: Path) -> None:
    host = analysis_host.ReadingHost(
        [single_file.parent / "adapter.safetensors"], [single_file.parent / "encoder"], single_file
    )
    info = host.text_tower(host.files.encoder(host.files.adapter("auto").feature))
    tokenize = host.tokenizer()
    assert tokenize is not None
    found = TextTower(info, tokenize, torch.device("cpu"), torch.float32).encode(["a rabbit"])
    start, end = info.config["bos_token_id"], info.config["eos_token_id"]
    pipe = opening.open_pipeline(single_file, torch.device("cpu"), torch.float32)
    wanted = pipe.text_encoder_2(torch.tensor([[start, *tokenize("a rabbit"), end]])).text_embeds
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_full_clip_model_goes_before_the_checkpoint_which_is_left_alone(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip_model().save_pretrained(tmp_path / "full", safe_serialization=True)
    monkeypatch.setattr(analysis_host, "text_parts", lambda *_: pytest.fail("the model was looked at"))
    tokenizer(tmp_path / "full")
    assert main(arguments("--encoder", tmp_path / "full", "--words", 3, "--json")) == OK
    (found,) = answered(capsys)
    assert len(found["words"]) == 3


def test_a_folder_is_analysed_picture_by_picture_with_one_loading_of_the_encoder(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "references"
    folder.mkdir()
    for number in range(3):
        picture(number).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    loaded: list[str] = []
    encoder = embedding.ImageEncoder
    monkeypatch.setattr(embedding, "ImageEncoder", lambda *given: (loaded.append("once"), encoder(*given))[1])
    assert main(arguments("--words", 2, "--json", style=folder)) == FAILED  # one could not be read
    found = answered(capsys)
    assert [one["reference"] for one in found] == ["0", "1", "2", "broken"]
    assert [len(one.get("words", ())) for one in found] == [2, 2, 2, 0]
    assert "broken.png" in found[-1]["error"]
    assert loaded == ["once"]


def test_several_files_are_one_reference(arguments: Arguments, tmp_path: Path, capsys: Any) -> None:
    picture(1).save(tmp_path / "more.png")
    assert main(arguments("--style", tmp_path / "more.png", "--words", 1, "--json")) == OK
    (found,) = answered(capsys)
    assert (found["reference"], len(found["files"])) == ("wave-and-1-more", 2)


def test_people_are_told_in_lines(arguments: Arguments, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("--content", "a rabbit", "--words", 2)) == OK
    head, read_by, shows, leak, scale = capsys.readouterr().out.splitlines()
    assert head.startswith("wave (")
    assert "read by base, model; words by model" in read_by
    assert shows.count(",") == 1
    assert "a rabbit: " in leak
    assert " before, " in leak
    assert "auto removes " in scale


def test_pictures_alone_need_no_text_tower(arguments: Arguments, tmp_path: Path, capsys: Any) -> None:
    picture(1).save(tmp_path / "gone.png")
    given = arguments("--content-image", tmp_path / "gone.png", "--words", 0)
    at = given.index("--model")
    assert main(given[:at] + given[at + 2 :]) == OK
    said = capsys.readouterr().out
    assert "picture 1: " in said
    assert "words by" not in said


def test_of_a_hub_model_only_the_text_parts_are_fetched(
    arguments: Arguments, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    asked: list[list[str]] = []

    def fetch(repository: str, allow_patterns: list[str]) -> str:
        assert repository == "owner/name"
        asked.append(allow_patterns)
        for part in ("tokenizer_2", "text_encoder_2"):
            if part == "tokenizer_2" or "text_encoder_2/model*.safetensors*" in allow_patterns:
                shutil.copytree(models / "sdxl" / part, tmp_path / "hub" / part, dirs_exist_ok=True)
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert main(arguments("--words", 1, "--json", model="owner/name")) == OK
    assert len(answered(capsys)[0]["words"]) == 1
    assert all(pattern.startswith(("text_encoder_2/", "tokenizer_2/")) for patterns in asked for pattern in patterns)
    assert len(asked) == 2  # there are no half-size files


def test_what_cannot_be_fetched_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(IncompatibleModelError, match=r"owner/name cannot be fetched from the Hub: no network$"):
        analysis_host.text_parts("owner/name")


REFUSALS: list[tuple[tuple[object, ...], str]] = [
    (("--model", "nothing.safetensors"), "not a Hub id"),
    (("--content-method", "erase"), "must be one of"),
    (("--content-scale", 9), "between 0 and 2"),
    (("--words", 101), "from 0 to 100"),
    (("--content-image", "nothing.png"), "There is no file nothing.png"),
    (("--adapter", "nothing"), "There is no file or folder nothing"),
    (("--model-config", "owner/name"), "--model-config is only for checkpoint files"),
    (("--model", __file__, "--model-config", "/nope"), "there is no folder /nope"),
    (("--device", "toaster"), "device must be like"),
    (("--style", "nothing.png"), "There is no file nothing.png"),
]


@pytest.mark.parametrize(("more", "told"), REFUSALS, ids=[str(more[-2]) for more, _ in REFUSALS])
def test_refusals_say_why(
    arguments: Arguments, capsys: pytest.CaptureFixture[str], more: tuple[object, ...], told: str
) -> None:
    assert main(arguments(*more, "--json")) == REFUSED
    said = capsys.readouterr()
    assert told in said.err
    assert json.loads(said.out)["message"] in said.err


def test_without_a_text_tower_the_way_out_is_said(
    arguments: Arguments, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments()
    at = given.index("--model")
    assert main(given[:at] + given[at + 2 :]) == REFUSED
    assert "--model" in capsys.readouterr().err
    assert main(arguments(model=models / "encoder")) == REFUSED
    assert "no text_encoder_2" in capsys.readouterr().err


def test_a_model_whose_text_has_another_width_is_refused(
    single_file: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(model=single_file)) == REFUSED
    assert "full CLIP model" in capsys.readouterr().err


def test_no_diffusers_is_needed(arguments: Arguments) -> None:
    code = (
        f"import sys; sys.modules['diffusers'] = None; sys.argv = ['x', *{arguments('--words', 2)!r}]; "
        "import runpy; runpy.run_module('lib_instantstyle', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == OK, done.stderr
    assert "shows: " in done.stdout


def test_a_host_for_reading_has_no_unet(models: Path) -> None:
    host = analysis_host.ReadingHost([models / "adapters"], [models / "encoder"], models / "sdxl")
    with pytest.raises(IncompatibleModelError, match="StandaloneHost"):
        host.unet()
