"""Opening models: checkpoint files, folders and Hub ids; nothing is fetched that was not asked for by id."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from lib_instantstyle.files.adapters import inspect_adapter
from lib_instantstyle.standalone import Checkpoint, Job, StandaloneHost, devices
from lib_instantstyle.standalone import models as opening
from lib_instantstyle.standalone.model_identity import description_identity
from lib_instantstyle.standalone.model_shapes import check_model
from lib_instantstyle.standalone.training import Settings
from lib_instantstyle.standalone.training.materials import Place, open_frozen
from lib_instantstyle.units.errors import (
    AdapterNotFoundError,
    CheckpointError,
    EncoderNotFoundError,
    IncompatibleModelError,
    InstantStyleError,
)

from ..jobs import unit
from ..tiny import sd15_unet
from ..tiny.pipelines import SIDE
from .conftest import LAYERS


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and an empty cache of the Hub."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(opening, "_cached", lambda *_: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def drawn(host: StandaloneHost, **fields: Any) -> np.ndarray:
    job = Job("a cat", (unit(preset="original", **fields),), width=SIDE, height=SIDE, steps=2)
    return np.asarray(host.generate(job)[0]).astype(float)


def test_a_folder_opens_and_draws_what_the_pipeline_draws(models: Path, host: StandaloneHost) -> None:
    opened = StandaloneHost.open(
        models / "sdxl", [models / "adapters/base.safetensors"], [models / "encoder"], controlnet=models / "controlnet"
    )
    assert np.abs(drawn(opened) - drawn(host)).max() <= 1  # of 255: a rounding
    assert opened.controlnet is not None


def test_a_checkpoint_file_opens_with_what_lies_beside_it(single_file: Path) -> None:
    folder = single_file.parent
    host = StandaloneHost.open(single_file, [folder / "adapter.safetensors"], [folder / "encoder"])
    tensors = load_file(str(single_file))
    key = tensors["model.diffusion_model.output_blocks.1.1.transformer_blocks.9.attn2.to_k.weight"]
    opened = host.unet().get_submodule("up_blocks.0.attentions.1.transformer_blocks.9.attn2.to_k")
    assert torch.equal(opened.weight, key.float())
    assert host.checkpoint_text_embeds(["a rabbit"]).shape == (1, 256)
    styled, plain = drawn(host, adapter="adapter"), drawn(host, adapter="adapter", weight=0.0)
    assert np.isfinite(styled).all()
    assert not np.array_equal(styled, plain)


def test_a_description_may_lie_elsewhere(single_file: Path, tmp_path: Path) -> None:
    moved = shutil.move(single_file.with_suffix(""), tmp_path / "elsewhere")
    with pytest.raises(IncompatibleModelError, match="--model-config"):
        opening.open_pipeline(single_file, torch.device("cpu"), torch.float32)
    with pytest.raises(IncompatibleModelError, match="--base-config"):
        open_frozen(Settings(single_file, Path(), Path(), Path()), Place(torch.device("cpu"), torch.float32))
    pipe = opening.open_pipeline(Checkpoint(single_file, moved), torch.device("cpu"), torch.float32)
    assert isinstance(pipe, StableDiffusionXLPipeline)


def test_a_description_is_told_by_what_it_says_and_not_by_where_it_lies(single_file: Path, tmp_path: Path) -> None:
    beside = description_identity(Checkpoint(single_file))
    copy = shutil.copytree(single_file.with_suffix(""), tmp_path / "elsewhere")
    (copy / "run").mkdir()
    (copy / "run/notes.json").write_text("{}")
    assert description_identity(Checkpoint(single_file, copy)) == beside
    scheduler = copy / "scheduler/scheduler_config.json"
    scheduler.write_text(scheduler.read_text("utf-8").replace("epsilon", "v_prediction"))
    assert description_identity(Checkpoint(single_file, copy)) != beside
    assert description_identity(Checkpoint(single_file, "owner/name")) == "owner/name"


def test_a_checkpoint_files_vae_can_be_had_exact(single_file: Path) -> None:
    tensors = load_file(str(single_file))
    save_file({name: tensor.float() * 1.001 for name, tensor in tensors.items()}, str(single_file))
    at = single_file, torch.device("cpu")
    whole = opening.open_pipeline(*at, torch.float32)
    half = opening.open_pipeline(*at, torch.bfloat16, exact_vae=True)
    assert (half.vae.dtype, half.unet.dtype) == (torch.float32, torch.bfloat16)
    assert all(torch.equal(tensor, half.vae.state_dict()[name]) for name, tensor in whole.vae.state_dict().items())


def test_layouts_are_read_without_loading(models: Path, single_file: Path) -> None:
    base = inspect_adapter(models / "adapters/base.safetensors")
    assert f"{LAYERS} cross" in check_model(models / "sdxl", base)
    assert "70 cross" in check_model(single_file, inspect_adapter(single_file.parent / "adapter.safetensors"))
    with pytest.raises(IncompatibleModelError, match="does not fit"):
        check_model(single_file, base)
    assert "Hub id" in check_model("owner/name", base)
    with pytest.raises(IncompatibleModelError, match="Check the path"):
        check_model(models / "adapters", base)


def test_a_model_of_another_family_is_refused(models: Path, tmp_path: Path) -> None:
    sd15_unet().save_pretrained(str(tmp_path / "sd15/unet"), safe_serialization=True)
    with pytest.raises(IncompatibleModelError, match=r"SD 1\.5"):
        check_model(tmp_path / "sd15", inspect_adapter(models / "adapters/base.safetensors"))


MISSING = [
    ("sdxl", "nothing.safetensors", "encoder", AdapterNotFoundError, "nothing"),
    ("sdxl", "encoder/model.safetensors", "encoder", CheckpointError, "model"),
    ("sdxl", "adapters", "nothing", EncoderNotFoundError, "nothing"),
    ("sdxl", "adapters", "adapters/base.safetensors", CheckpointError, "base"),
    ("nothing.safetensors", "adapters", "encoder", IncompatibleModelError, "not a Hub id"),
    ("adapters", "adapters", "encoder", IncompatibleModelError, "cannot be opened"),
]


@pytest.mark.parametrize(("model", "adapter", "encoder", "kind", "told"), MISSING)
def test_what_is_missing_or_no_model_is_refused_by_name(
    models: Path, model: str, adapter: str, encoder: str, kind: type[InstantStyleError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        StandaloneHost.open(models / model, [models / adapter], [models / encoder])


def test_no_adapter_at_all_is_answered_with_where_to_get_one(models: Path, pipe: Any) -> None:
    host = StandaloneHost(pipe, [models / "encoder"], [models / "encoder"])
    with pytest.raises(AdapterNotFoundError, match=r"ip-adapter_sdxl\.safetensors.*--adapter"):
        host.files.adapter("auto")


def test_device_and_precision_are_picked_for_each_other() -> None:
    cpu = torch.device("cpu")
    assert devices.pick_dtype(None, cpu) == torch.float32
    assert (
        devices.pick_dtype(None, torch.device("cuda")) == devices.pick_dtype(None, torch.device("mps")) == torch.float16
    )
    assert devices.pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert devices.pick_device("cpu") == cpu
    for wrong in ("xpu:nothing", "toaster"):
        with pytest.raises(InstantStyleError, match="device"):
            devices.pick_device(wrong)
    with pytest.raises(InstantStyleError, match="float64"):
        devices.pick_dtype("float64", cpu)
    if not torch.cuda.is_available():
        with pytest.raises(InstantStyleError, match="Use cpu"):
            devices.pick_device("cuda")


def test_half_precision_takes_the_half_size_files_of_the_hub_and_of_a_folder(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def load(source: str, **given: Any) -> Any:
        asked.append(given.get("variant"))
        if given.get("variant"):
            raise ValueError("no such variant")
        return torch.nn.Identity()

    monkeypatch.setattr(StableDiffusionXLPipeline, "from_pretrained", load)
    for dtype in (torch.float16, torch.float32):
        opening.open_pipeline("owner/name", torch.device("cpu"), dtype)
    assert asked == ["fp16", None, None]
    (tmp_path / "half/unet").mkdir(parents=True)
    (tmp_path / "half/unet/model.fp16.safetensors").touch()
    assert opening._variant_in(tmp_path / "half") == {"variant": "fp16"}
    assert opening._variant_in(models / "sdxl") == {}


def test_without_diffusers_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InstantStyleError, match=r"requirements-standalone\.txt"):
        opening.import_diffusers()


def test_a_controlnet_file_opens_from_its_folder_only(models: Path, tmp_path: Path) -> None:
    from lib_instantstyle.standalone.models import open_controlnet

    (file,) = (models / "controlnet").glob("*.safetensors")
    at = torch.device("cpu"), torch.float32
    assert type(open_controlnet(file, *at)).__name__ == "ControlNetModel"
    lonely = shutil.copy(file, tmp_path)
    with pytest.raises(IncompatibleModelError, match=r"config\.json"):
        open_controlnet(lonely, *at)
