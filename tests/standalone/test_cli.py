"""The command line: pictures, batches that resume, answers for machines, exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_instantstyle.standalone import StandaloneHost
from lib_instantstyle.standalone import host as hosting
from lib_instantstyle.standalone import models as opening
from lib_instantstyle.standalone.cli.app import FAILED, INTERRUPTED, OK, REFUSED, main, verdict
from lib_instantstyle.standalone.cli.batch import told_of
from lib_instantstyle.standalone.cli.references import find_styles, open_picture
from lib_instantstyle.standalone.cli.stylize import _blocks
from lib_instantstyle.standalone.jobs import Job
from lib_instantstyle.units.errors import InstantStyleError, StyleNotAppliedError, UnitError
from lib_instantstyle.units.unit import PICTURE_FIELDS, StyleUnit

from ..published import install
from ..tiny import picture, plus_adapter, save_adapter, sdxl_unet
from ..tiny.clip import HIDDEN
from .conftest import LAYERS
from .forked import start

ROOT = Path(__file__).parents[2]
Arguments = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture
def opened_once(models: Path, opened: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model is read from disk once: whoever styles it leaves no trace, or the next test fails."""
    read = hosting.open_pipeline

    def open_once(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
        if str(model) != str(models / "sdxl"):
            return read(model, device, dtype)
        key = f"{device} {dtype}"
        opened[key] = opened.get(key) or read(model, device, dtype)
        return opened[key]

    monkeypatch.setattr(hosting, "open_pipeline", open_once)


@pytest.fixture(scope="module")
def opened() -> dict[str, Any]:
    return {}


@pytest.fixture
def references(tmp_path: Path) -> Path:
    folder = tmp_path / "references"
    folder.mkdir()
    for number in range(2):
        picture(number).save(folder / f"Wave {number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def arguments(models: Path, references: Path, tmp_path: Path, opened_once: None) -> Arguments:
    """`stylize` on the tiny models; more arguments come last and win."""

    def made(*more: object, style: object = None, prompt: str | None = "a cat") -> list[str]:
        paths = {"--model": "sdxl", "--adapter": "adapters/base.safetensors", "--encoder": "encoder"}
        given = [str(word) for option, path in paths.items() for word in (option, models / path)]
        given += ["--style", str(style or references / "Wave 0.png"), *(["--prompt", prompt] if prompt else [])]
        given += ["--steps", "2", "--width", "64", "--height", "64", "--quiet", "--out", str(tmp_path / "out")]
        return ["stylize", *given, *map(str, more)]

    return made


def answered(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_one_picture_with_everything_it_was_made_of(
    arguments: Arguments, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--style", references / "Wave 1.png", "--content", "a rabbit", "--weight", 1.5, "--seed", 4, "--json")
    assert main(arguments(*more)) == OK
    (cell,) = answered(capsys)["cells"]
    assert (cell["reference"], cell["prompt"], cell["status"]) == ("Wave 0-and-1-more", "a cat", "made")
    (path,) = cell["files"]
    told = Image.open(path).info["parameters"]
    assert "Seed: 4" in told
    assert "content_prompt: a rabbit" in told
    assert Image.open(path).size == (64, 64)
    assert Path(path).name == f"wave-0-and-1-more--a-cat--{cell['id']}-4.png"
    assert not list((tmp_path / "out").rglob("*.part"))


def test_what_a_finished_job_hashes_is_not_made_again_and_anything_else_is(
    arguments: Arguments, references: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments()) == OK
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    with monkeypatch.context() as patch:
        patch.setattr(StandaloneHost, "open", lambda *_, **__: pytest.fail("nothing needs a model"))
        assert main(arguments()) == OK
        assert main(arguments("--batch", 2)) == OK  # how many at once is not part of what is made
    for more in (("--weight", 0.5), ("--seed", 1), ("--init", references / "Wave 1.png")):
        assert main(arguments(*more)) == OK
    found = sorted((tmp_path / "out").glob("*.png"))
    assert len(found) == 4
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


def test_folder_times_prompts_makes_a_sheet(
    arguments: Arguments, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (references / "broken.png").write_bytes(b"no picture")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# two of them\na cat\n\na <b>red</b> roof\n", "utf-8")
    given = arguments("--prompts", prompts, "--json", style=references, prompt=None)
    assert main(given) == FAILED  # one reference could not be read, and the others were made
    cells = answered(capsys)["cells"]
    assert [(cell["reference"], cell["status"]) for cell in cells] == [
        *[("Wave 0", "made")] * 2,
        *[("Wave 1", "made")] * 2,
        *[("broken", "failed")] * 2,
    ]
    assert "broken.png" in cells[-1]["error"]
    page = (tmp_path / "out/index.html").read_text("utf-8")
    assert "a &lt;b&gt;red&lt;/b&gt; roof" in page
    assert all(name in page for cell in cells for name in map(os.path.basename, cell["files"]))
    index = json.loads((tmp_path / "out/index.json").read_text("utf-8"))
    assert len(index["cells"]) == 6
    (references / "broken.png").unlink()
    assert main(given) == OK
    assert {cell["status"] for cell in answered(capsys)["cells"]} == {"kept"}
    assert len(json.loads((tmp_path / "out/index.json").read_text("utf-8"))["cells"]) == 4


def test_a_killed_batch_goes_on_where_it_was(
    arguments: Arguments, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a cat {'!' * number}" for number in range(1, 6)), "utf-8")
    given = arguments("--prompts", prompts, "--json", style=references, prompt=None)
    out = tmp_path / "out"
    running = start(given, tmp_path)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.png"))) < 2 and running.process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running.ended(timeout=0) == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 2 <= len(before) < 10
    json.loads((out / "index.json").read_text("utf-8"))  # never half a file
    assert main(given) == OK
    cells = answered(capsys)["cells"]
    assert [cell["status"] for cell in cells].count("kept") == len(before)
    assert len(list(out.glob("*.png"))) == len(cells) == 10
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


def test_a_damaged_index_is_written_anew(arguments: Arguments, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.json").write_text('{"cells": [{"nonsense": 1}]')
    assert main(arguments("--count", 2)) == OK
    (cell,) = json.loads((tmp_path / "out/index.json").read_text("utf-8"))["cells"]
    assert len(cell["files"]) == 2


def test_control_and_init_pictures_come_through(arguments: Arguments, models: Path, references: Path) -> None:
    control = ("--control", references / "Wave 1.png", "--controlnet", models / "controlnet")
    assert main(arguments(*control, "--init", references / "Wave 1.png", "--block", "up_blocks.0=0.5")) == OK


def test_pictures_to_avoid_and_block_numbers_come_through(arguments: Arguments, references: Path) -> None:
    avoided = ("--negative-image", references / "Wave 1.png", "--negative-image", references / "Wave 1.png")
    assert main(arguments(*avoided, "--block", "0:0.5, 6:1", "--attention-guidance", 2, "--guidance", 1)) == OK


def test_a_cell_depends_on_every_picture_of_its_unit() -> None:
    names = [name for name in PICTURE_FIELDS if name != "image"]
    units = [StyleUnit(**{name: (picture(seed),)}) for name in names for seed in (0, 1)]
    told = [json.dumps(told_of(Job("a cat"), unit), sort_keys=True) for unit in [StyleUnit(), *units]]
    assert len(set(told)) == len(told)


def test_block_numbers_are_read_from_one_text_only() -> None:
    assert _blocks(["0:1, 6:1.2"]) == "0:1, 6:1.2"
    assert _blocks(["up_blocks.0=0.5", "mid_block=1"]) == {"up_blocks.0": 0.5, "mid_block": 1.0}


REFUSED_CALLS: list[tuple[tuple[object, ...], str]] = [
    (("--weight", 9), "Style weight: must be between -1 and 3, got 9"),
    (("--preset", "styel"), "must be one of"),
    (("--block", "up_blocks.0"), "ADDRESS=SCALE"),
    (("--block", "up_blocks.9=1"), "is not a cross-attention block"),
    (("--width", 70), "multiple of 8"),
    (("--style", "nothing.png"), "There is no file nothing.png"),
    (("--prompts", "nothing.txt"), "nothing.txt cannot be read"),
    (("--control", __file__), "test_cli.py: "),
    (("--controlnet", "x/y"), "--control and --controlnet belong together"),
    (("--adapter", "nothing"), "There is no file or folder nothing"),
    (("--model", "nothing.safetensors"), "not a Hub id"),
    (("--model-config", "owner/name"), "--model-config is only for checkpoint files"),
    (("--model", __file__, "--model-config", "/nope"), "there is no folder /nope"),
    (("--device", "toaster"), "device must be like"),
    (("--dtype", "float64"), "dtype must be one of"),
    (("--start", 0.5, "--end", 0.5), "The start must be before the end"),
    (("--out", __file__), "Not a directory"),
]


@pytest.mark.parametrize(("more", "told"), REFUSED_CALLS, ids=[str(more[0]) for more, _ in REFUSED_CALLS])
def test_refusals_say_why_on_stderr_and_as_json(
    arguments: Arguments, capsys: pytest.CaptureFixture[str], more: tuple[object, ...], told: str
) -> None:
    code = main(arguments(*more, "--json"))
    said = capsys.readouterr()
    assert code == (FAILED if more[0] == "--out" else REFUSED)
    assert told in said.err
    assert "Traceback" not in said.err
    assert json.loads(said.out)["message"] in said.err


OUT_OF_RANGE = [
    *[(option, value) for option in ("--guidance", "--control-scale", "--strength") for value in ("nan", "inf", "-1")],
    *[("--weight", value) for value in ("nan", "inf")],
    *[("--start", "nan"), ("--content-scale", "inf"), ("--block", "up_blocks.0=nan")],
    *[("--steps", 1001), ("--width", 8200), ("--seed", -1), ("--seed", 2**64), ("--count", 0), ("--batch", 0)],
]


@pytest.mark.parametrize(("option", "value"), OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused_before_a_model_is_opened(
    arguments: Arguments,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: object,
) -> None:
    monkeypatch.setattr(StandaloneHost, "open", lambda *_, **__: pytest.fail("a model was opened"))
    assert main(arguments(f"{option}={value}")) == REFUSED
    assert str(value).rpartition("=")[2] in capsys.readouterr().err


CHANNELS = [(9, "an inpainting model"), (8, "an InstructPix2Pix model"), (5, "5 input channels")]


@pytest.mark.parametrize(("channels", "told"), CHANNELS)
def test_a_model_that_takes_more_than_a_latent_is_seen_from_its_shapes(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str], channels: int, told: str
) -> None:
    weight = torch.zeros(4, channels, 3, 3)
    save_file({"model.diffusion_model.input_blocks.0.0.weight": weight}, str(tmp_path / "edits.safetensors"))
    (tmp_path / "edits/unet").mkdir(parents=True)
    save_file({"conv_in.weight": weight}, str(tmp_path / "edits/unet/diffusion_pytorch_model.safetensors"))
    training = ["train", "--encoder", "nothing", "--data", "nothing", "--out", str(tmp_path / "run"), "--cpu"]
    for model in (tmp_path / "edits.safetensors", tmp_path / "edits"):
        assert main(arguments("--model", model)) == REFUSED
        assert main([*training, "--base", str(model)]) == REFUSED
        said = capsys.readouterr().err
        assert said.count(told) == 2
        assert not list((tmp_path / "out").glob("*.png"))
        assert told in checked(capsys, "--model", model)["model"]["found"]


def test_hidden_files_of_a_folder_are_passed_over(
    arguments: Arguments, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("._Wave 0.png", ".thumbnail.png"):
        (references / name).write_bytes(b"left by a program")
    assert [style.name for style in find_styles([references])] == ["Wave 0", "Wave 1"]


def test_of_many_references_one_is_in_memory_at_a_time(
    arguments: Arguments, references: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2, 20):
        picture(number).save(references / f"Wave {number}.png")
    kept: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def opened(path: Path) -> Any:
        found = open_picture(path)
        alive.append(sum(one() is not None for one in kept))
        kept.append(weakref.ref(found.image))
        return found

    monkeypatch.setattr("lib_instantstyle.standalone.cli.references.open_picture", opened)
    nothing = SimpleNamespace(pipe=SimpleNamespace(set_progress_bar_config=lambda **_: None))
    nothing.generate = lambda job: [Image.new("RGB", (8, 8))]
    monkeypatch.setattr(StandaloneHost, "open", lambda *_, **__: nothing)
    assert main(arguments("--json", style=references)) == OK
    assert len(answered(capsys)["cells"]) == 20
    assert len(kept) == 40  # once to hash it, once to draw with it
    assert max(alive) <= 1


@pytest.mark.parametrize(
    "launcher", [{"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "2"}, {"PMI_RANK": "1", "PMI_SIZE": "2"}]
)
def test_a_launchers_rank_silences_no_command_but_a_training(
    launcher: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor"]) == OK
    assert "torch" in capsys.readouterr().out
    assert main(["inspect", "nothing.bin"]) == REFUSED
    assert "There is no file" in capsys.readouterr().err
    wrong = InstantStyleError("wrong")
    wrong.shared = True  # as every process of a training would say it
    monkeypatch.setattr("lib_instantstyle.standalone.cli.training.run", lambda _: (_ for _ in ()).throw(wrong))
    assert main(["train", *TRAIN]) == REFUSED
    assert ("wrong" in capsys.readouterr().err) == (len(launcher) == 1)  # alone, it speaks


def test_folders_and_files_are_not_mixed(
    arguments: Arguments, references: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("--style", references)) == REFUSED
    assert "got both" in capsys.readouterr().err
    for file in references.glob("*.png"):
        file.unlink()
    assert main(arguments(style=references)) == REFUSED
    assert "no readable picture" in capsys.readouterr().err
    assert main(arguments(prompt=None)) == REFUSED


@pytest.mark.parametrize("wrong", [[], ["paint"], ["stylize"], ["stylize", "--steps", "many"], ["inspect"]])
def test_wrong_usage_leaves_with_two(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(wrong)
    assert caught.value.code == REFUSED


STYLIZE = ["--style", "a", "--model", "m", "--adapter", "b", "--encoder", "c", "--out", "d"]
ANALYZE = ["--style", "a", "--adapter", "b", "--encoder", "c"]
TRAIN = ["--base", "m", "--encoder", "c", "--data", "d", "--out", "o"]
EXPECTED = [
    (UnitError("no", "weight"), REFUSED, "weight: no"),
    (StyleNotAppliedError("not applied"), FAILED, "not applied"),
    (torch.cuda.OutOfMemoryError("CUDA out of memory."), FAILED, "Not enough memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), FAILED, "Not enough memory"),
    (MemoryError(), FAILED, "Not enough memory"),
    (OSError(28, "No space left on device", "/full"), FAILED, "/full: No space left"),
]


@pytest.mark.parametrize(("error", "code", "told"), EXPECTED)
def test_expected_errors_have_a_code_and_a_message(error: Exception, code: int, told: str) -> None:
    found, message = verdict(error)
    assert found == code
    assert message is not None
    assert told in message


MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("command", ["stylize", "analyze", "train", "inspect", "doctor"])
def test_where_memory_ends_a_command_names_its_own_options(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = {"inspect": "inspecting", "train": "training"}.get(command, command)
    monkeypatch.setattr(f"lib_instantstyle.standalone.cli.{module}.run", lambda _: (_ for _ in ()).throw(MEMORY))
    needed = {"stylize": STYLIZE, "analyze": ANALYZE, "train": TRAIN, "inspect": ["file"], "doctor": []}
    assert main([command, *needed[command]]) == FAILED
    named = set(re.findall(r"--[a-z-]+", capsys.readouterr().err))
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert named <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert named or command in ("inspect", "doctor")


def test_an_unexpected_error_is_not_hidden(arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandaloneHost, "open", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(arguments())


def test_an_interrupt_says_that_it_can_go_on(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StandaloneHost, "open", interrupt)
    assert main(arguments()) == INTERRUPTED
    assert "run the same command to continue" in capsys.readouterr().err


def test_inspect_tells_adapters_encoders_and_the_rest_apart(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = save_adapter(plus_adapter(sdxl_unet((2, 10)), HIDDEN), tmp_path / "deep/plus.safetensors")
    assert main(["inspect", str(deep), "--json"]) == OK
    (adapter,) = answered(capsys)["files"]
    assert (adapter["kind"], adapter["variant"], adapter["tokens"]) == ("IP-Adapter", "plus", 16)
    assert (adapter["layers"], adapter["blocks"]) == (70, "all")
    assert main(["inspect", str(models / "encoder/model.safetensors"), "--json"]) == OK
    assert answered(capsys)["files"][0]["kind"] == "CLIP image encoder"
    assert main(["inspect", str(models)]) == OK
    said = capsys.readouterr().out
    assert said.count("kind: IP-Adapter") == 2
    assert main(["inspect", str(models / "sdxl/unet/diffusion_pytorch_model.safetensors")]) == REFUSED
    assert main(["inspect", str(tmp_path / "nothing.bin")]) == REFUSED
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) == REFUSED
    assert "Traceback" not in capsys.readouterr().err


CONTENT_PROMPTS = [
    ("ip-adapter_sdxl", "possible; words are read by the checkpoint"),
    ("ip-adapter_sdxl_vit-h", "possible; words are read by the text encoder of a full CLIP model"),
    ("ip-adapter-plus_sdxl_vit-h", "experimental, on patch features; words are read by the text encoder"),
]


@pytest.mark.parametrize(("published", "told"), CONTENT_PROMPTS)
def test_inspect_says_what_a_content_prompt_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], published: str, told: str
) -> None:
    assert main(["inspect", str(install(published, tmp_path))]) == OK
    assert f"content_prompt: {told}" in capsys.readouterr().out


def test_doctor_checks_the_files_together(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == OK
    said = capsys.readouterr().out
    assert "ip-adapter_sdxl.safetensors" in said
    assert f"torch: {torch.__version__}".split("+")[0] in said
    files = [
        "--model",
        str(models / "sdxl"),
        "--adapter",
        str(models / "adapters"),
        "--encoder",
        str(models / "encoder"),
    ]
    assert main(["doctor", *files, "--json"]) == OK
    checks = {check["name"]: check for check in answered(capsys)["checks"]}
    assert f"{LAYERS} cross-attention layers" in checks["model"]["found"]
    assert main(["doctor", "--adapter", str(models / "encoder"), "--json"]) == FAILED
    assert not answered(capsys)["fine"]
    assert main(["doctor", *files[:4], "--encoder", str(models / "adapters")]) == FAILED


def checked(capsys: pytest.CaptureFixture[str], *files: object) -> dict[str, dict[str, Any]]:
    """What `doctor` finds of the files given, by name."""
    code = main(["doctor", "--json", *map(str, files)])
    found = answered(capsys)
    assert code == (OK if found["fine"] else FAILED)
    return {check["name"]: check for check in found["checks"]}


def test_doctor_looks_at_each_file_by_itself(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = {"--model": "/nope/x.safetensors", "--encoder": "/nope/encoder", "--adapter": "/nope/adapter.bin"}
    for option, path in nowhere.items():
        check = checked(capsys, option, path)[option[2:]]
        assert not check["fine"]
        assert path in check["found"]
    both = checked(capsys, *(word for pair in nowhere.items() for word in pair))
    assert [both[option[2:]]["fine"] for option in nowhere] == [False] * 3
    there = checked(capsys, "--model", models / "sdxl", "--encoder", models / "encoder")
    assert (there["model"]["fine"], there["encoder"]["fine"], there["adapter"]["found"]) == (True, True, "none given")
    assert f"{LAYERS} cross-attention layers" in there["model"]["found"]
    assert "model.safetensors" in there["encoder"]["found"]


def test_doctor_says_what_a_checkpoint_file_lacks(
    single_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "_cached", lambda *_: None)
    assert "described by" in checked(capsys, "--model", single_file)["model config"]["found"]
    alone = Path(shutil.copy(single_file, single_file.parent / "alone.safetensors"))
    check = checked(capsys, "--model", alone)["model config"]
    assert check["fine"]  # it may be given when pictures are made
    assert "--model-config stabilityai/" in check["advice"]


def test_doctor_names_a_gpu_that_holds_sdxl_and_its_decoding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert "12 GB" in checked(capsys)["devices"]["advice"]


def test_doctor_refuses_what_is_no_model_and_no_encoder(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = models / "adapters/base.safetensors"
    found = checked(capsys, "--model", file, "--encoder", file, "--adapter", file)
    assert [found[name]["fine"] for name in ("model", "encoder", "adapter")] == [False, False, True]
    empty = checked(capsys, "--encoder", models / "adapters")["encoder"]
    assert "there is none in" in empty["found"]


def test_the_command_runs_as_a_module_and_answers_without_diffusers() -> None:
    code = (
        "import sys; sys.modules['diffusers'] = None; sys.argv = ['x', 'doctor', '--json']; "
        "import runpy; runpy.run_module('lib_instantstyle', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == OK
    assert json.loads(done.stdout)["fine"]
