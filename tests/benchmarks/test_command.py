"""The command runs whole at tiny sizes, and writes what the plot reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import layers
from benchmarks.__main__ import main
from benchmarks.controlnet import why_missing
from benchmarks.layers import Point

TINY = ["--size", "tiny", "--device", "cpu", "--rounds", "1", "--steps", "1", "--pixels", "64"]
SECTIONS = ["--sections", "memory,starting,growth,sampling,kernels,vram"]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Sections that measure, at tiny sizes and without ControlNet."""
    monkeypatch.delenv("CONTROLNET_DIR", raising=False)
    points = {"64 px": Point(pixels=64), "128 px": Point(pixels=128)}
    monkeypatch.setattr(layers, "SERIES", {"side of the picture": points})
    assert main([*TINY, *SECTIONS, "--json", str(tmp_path / "numbers.json")]) == 0
    data = json.loads((tmp_path / "numbers.json").read_text("utf-8"))
    said = capsys.readouterr().out
    assert data["machine"] in said
    assert f"torch {torch.__version__}" in data["machine"]
    return {table["name"]: table["rows"] for table in data["tables"]}


def test_every_section_answers_and_says_what_it_could_not_run(tables: dict[str, Any]) -> None:
    for name in ("preparing one unit", "until the first step"):
        assert "--controlnet" in tables[name]["ControlNet"]["not run"]
    preparing = tables["preparing one unit"]
    kept = [preparing[name]["MiB kept"] for name in ("style", "original", "diffusers, any preset, float32")]
    assert kept == sorted(kept)
    assert preparing["style"]["encoders left"] == "0"
    assert preparing["style"]["MiB read of the file"] < preparing["original"]["MiB read of the file"]
    assert len(tables["until the first step"]) == 6
    assert set(tables["growth: side of the picture"]["64 px"]) == {"plain, ms", "ours", "diffusers"}
    assert len(tables["sampling"]) == 9  # the plain UNet, four of ours, three of diffusers, and ControlNet's excuse
    for name in ("computed by the GPU", "memory of the GPU"):
        assert "GPU" in tables[name]["all"]["not run"]


def test_a_section_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--sections", "flops,heat"])
    assert "heat" in capsys.readouterr().err


def test_a_checkout_that_is_none_is_said(tmp_path: Path) -> None:
    assert "--controlnet" in (why_missing(None) or "")
    assert "scripts/ipadapter" in (why_missing(tmp_path) or "")
