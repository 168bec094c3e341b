"""`stylize --method swapped` and `shared`: style from a picture with nothing but the checkpoint."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lib_instantstyle.standalone import Job, StandaloneHost
from lib_instantstyle.standalone.cli.app import OK, REFUSED, main
from lib_instantstyle.units.unit import StyleUnit

from ..tiny import picture


@pytest.fixture
def given(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    picture().save(tmp_path / "a.png")
    size = ["--steps", "2", "--width", "64", "--height", "64"]
    named = ["--style", str(tmp_path / "a.png"), "--prompt", "a cat", "--out", str(tmp_path / "out")]
    return ["stylize", "--model", str(models / "sdxl"), *named, *size, "--quiet", "--json"]


@pytest.mark.parametrize("method", ["shared", "swapped"])
def test_it_takes_a_picture_and_neither_adapter_nor_encoder(
    given: list[str], method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for more in ([], [], ["--weight", "0"]):
        assert main([*given, "--method", method, *more]) == OK
        said += json.loads(capsys.readouterr().out)["cells"]
    assert [cell["status"] for cell in said] == ["made", "kept", "made"]
    styled, plain = (Image.open(said[number]["files"][0]) for number in (0, 2))
    assert f"method: {method}, preset: style" in styled.info["parameters"]
    assert styled.tobytes() != plain.tobytes()


def test_the_guard_makes_another_picture(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for more in ([], ["--leak-guard"]):
        assert main([*given, "--method", "swapped", *more]) == OK
        made.append(Image.open(json.loads(capsys.readouterr().out)["cells"][0]["files"][0]).tobytes())
    assert made[0] != made[1]


def test_an_adapter_beside_it_is_refused(given: list[str], models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*given, "--method", "swapped", "--adapter", str(models / "adapters/base.safetensors")]) == REFUSED
    assert "--adapter is only for --method adapter; the method is swapped" in capsys.readouterr().err


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_colours_of_a_pipeline_are_those_of_the_reference(host: StandaloneHost, prediction: str) -> None:
    """At the only step that counts, the scheduler is given what AdaIN of the denoised latent comes to."""
    seen: list[torch.Tensor] = []
    size, scheduler = (host.pipe.unet.config.sample_size,) * 2, host.pipe.scheduler
    host.pipe.scheduler = type(scheduler).from_config({**scheduler.config, "prediction_type": prediction})
    own = host.pipe.scheduler.step

    def step(*args: Any, **kwargs: Any) -> Any:
        made = own(*args, **{**kwargs, "return_dict": True})
        seen.append(made.pred_original_sample)
        return (made.prev_sample,)

    host.pipe.scheduler.step = functools.wraps(own)(step)
    try:
        side = size[0] * host.pipe.vae_scale_factor
        job = Job("a cat", (StyleUnit(method="palette", image=(picture(),)),), width=side, height=side, steps=2)
        host.generate(job)
    finally:
        host.pipe.scheduler = scheduler
    reference = host.latent_of(picture(), *size)
    for measure in (torch.mean, torch.std):
        torch.testing.assert_close(measure(seen[1], (2, 3)), measure(reference, (2, 3)), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(seen[0].mean((2, 3)), reference.mean((2, 3)), atol=1e-2)
