"""Checkpoint files that say of themselves that they predict v: samplers and training obey."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

from lib_instantstyle.standalone import Checkpoint
from lib_instantstyle.standalone.models import obeying_marks, open_pipeline
from lib_instantstyle.standalone.training.recipe import loss_weights, noise_schedule
from lib_instantstyle.units.errors import IncompatibleModelError

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}


def marked(path: Path, *marks: str) -> Path:
    """A file of nothing but marks."""
    save_file({"weight": torch.zeros(1), **{mark: torch.empty(0) for mark in marks}}, str(path))
    return path


def obeyed(path: Path, *marks: str, **described: Any) -> dict[str, Any]:
    scheduler = EulerDiscreteScheduler(**{**SDXL, **described})
    return dict(obeying_marks(scheduler, marked(path / "model.safetensors", *marks)).config)


def test_a_marked_file_opens_as_what_it_is_whatever_describes_it(single_file: Path) -> None:
    save_file({**load_file(str(single_file)), "v_pred": torch.empty(0), "ztsnr": torch.empty(0)}, str(single_file))
    given = Checkpoint(single_file, single_file.with_suffix(""))
    pipe = open_pipeline(given, torch.device("cpu"), torch.float32)
    assert type(pipe.scheduler) is EulerDiscreteScheduler
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    pipe.scheduler.set_timesteps(4)
    assert pipe.scheduler.timesteps[0] == 999  # where nothing is left of the picture
    schedule = noise_schedule(pipe.scheduler)
    assert schedule.config.prediction_type == "v_prediction"
    assert schedule.alphas_cumprod[-1] == 0
    weights = loss_weights(schedule, torch.tensor([0, 999]), "picture")
    assert weights is not None
    assert weights.isfinite().all()


def test_marks_say_what_they_say_and_the_description_the_rest(tmp_path: Path) -> None:
    plain = obeyed(tmp_path)
    assert (plain["prediction_type"], plain["rescale_betas_zero_snr"]) == ("epsilon", False)
    v = obeyed(tmp_path, "v_pred")
    assert (v["prediction_type"], v["rescale_betas_zero_snr"]) == ("v_prediction", False)
    assert v["timestep_spacing"] == "leading"
    both = obeyed(tmp_path, "v_pred", "ztsnr")
    assert (both["rescale_betas_zero_snr"], both["timestep_spacing"]) == (True, "trailing")
    assert both["beta_end"] == SDXL["beta_end"]


def test_a_description_is_believed_where_no_mark_denies_it(tmp_path: Path) -> None:
    assert obeyed(tmp_path, prediction_type="v_prediction")["prediction_type"] == "v_prediction"
    own = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "linspace"}
    assert obeyed(tmp_path, "v_pred", "ztsnr", **own)["timestep_spacing"] == "linspace"


def test_a_pickled_checkpoint_is_marked_too(tmp_path: Path) -> None:
    torch.save({"state_dict": {"v_pred": torch.empty(0), "weight": torch.zeros(9)}}, tmp_path / "model.ckpt")
    found = obeying_marks(EulerDiscreteScheduler(**SDXL), tmp_path / "model.ckpt")
    assert found.config.prediction_type == "v_prediction"


def test_a_described_scheduler_that_cannot_is_refused(tmp_path: Path) -> None:
    path = marked(tmp_path / "model.safetensors", "v_pred", "ztsnr")
    with pytest.raises(IncompatibleModelError, match=r"PNDMScheduler.*rescale_betas_zero_snr"):
        obeying_marks(PNDMScheduler(), path)


def test_a_pipeline_that_obeyed_can_be_saved_with_it(single_file: Path, tmp_path: Path) -> None:
    save_file({**load_file(str(single_file)), "v_pred": torch.empty(0)}, str(single_file))
    pipe = open_pipeline(single_file, torch.device("cpu"), torch.float32)
    pipe.save_pretrained(str(tmp_path / "saved"))
    told = json.loads((tmp_path / "saved/scheduler/scheduler_config.json").read_text("utf-8"))
    assert told["prediction_type"] == "v_prediction"
