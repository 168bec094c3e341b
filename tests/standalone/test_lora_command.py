"""`stylize --method lora`: style from a LoRA file that is named on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_instantstyle.standalone.cli.app import OK, REFUSED, main

from ..jobs import STYLE
from ..tiny import picture
from ..tiny.loras import linear_paths, tiny_pairs, write_lora


@pytest.fixture
def lora(pipe: Any, tmp_path: Path) -> Path:
    return write_lora(tmp_path / "Wet ink.safetensors", tiny_pairs(pipe.unet, linear_paths(pipe.unet, STYLE)))


@pytest.fixture
def given(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    size = ["--steps", "2", "--width", "64", "--height", "64"]
    return ["stylize", "--model", str(models / "sdxl"), "--prompt", "a cat", *size, "--quiet", "--json"]


def test_a_lora_takes_the_place_of_picture_adapter_and_encoder(
    given: list[str], lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*given, "--out", str(tmp_path / "out"), "--method", "lora", "--lora", str(lora)]
    said = []
    for more in ([], [], ["--weight", "0"]):
        assert main([*command, *more]) == OK
        said += json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["reference"], cell["status"]) for cell in said] == [
        ("Wet ink", "made"),
        ("Wet ink", "kept"),
        ("Wet ink", "made"),
    ]
    styled, plain = (Image.open(said[number]["files"][0]) for number in (0, 2))
    assert "method: lora, lora: Wet ink, preset: style" in styled.info["parameters"]
    assert styled.tobytes() != plain.tobytes()


REFUSED_CALLS: list[tuple[list[str], str]] = [
    (["--method", "lora"], "needs --lora"),
    (["--lora", "nothing.safetensors"], "--lora is only for --method lora"),
    (["--method", "lora", "--lora", "nothing.safetensors"], "There is no file nothing.safetensors"),
    (
        ["--method", "lora", "--lora", __file__, "--style", "a.png"],
        "--style is only for --method adapter or shared or swapped",
    ),
    (["--method", "paint", "--lora", __file__], "must be one of adapter, shared, swapped, lora"),
    ([], "needs --style"),
]


@pytest.mark.parametrize(("more", "told"), REFUSED_CALLS, ids=[told for _, told in REFUSED_CALLS])
def test_halves_of_a_source_are_refused(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    picture().save(tmp_path / "a.png")
    assert main([*given, "--out", str(tmp_path / "out"), *more]) == REFUSED
    assert told in capsys.readouterr().err
