"""What AUTOMATIC1111's WebUI answers to the questions of a style session."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from lib_instantstyle.units.errors import IncompatibleModelError

from ..tiny.clip import POOLED
from .seen import unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111

LINEAR: Any = torch.nn.Linear


@pytest.fixture
def host(web: A1111) -> Any:
    return web.library("job").live_job().host


def test_a_unet_that_has_no_layers_is_refused(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.sd_unet.current_unet", object())
    monkeypatch.setattr("modules.sd_unet.current_unet_option", SimpleNamespace(label="TensorRT"))
    monkeypatch.setattr("modules.sd_unet.get_unet_option", object)
    with pytest.raises(web.library("job").InstantStyleRefused, match="SD Unet TensorRT has no layers") as caught:
        web.generate(unit())
    assert caught.value.detail["error"] == "IncompatibleModelError"


def test_a_unet_that_goes_before_sampling_is_none(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.sd_unet.current_unet", object())
    assert web.generate(unit()).images


@pytest.mark.parametrize("model", [None, SimpleNamespace()])
def test_without_a_checkpoint_it_says_so(web: A1111, host: Any, model: Any) -> None:
    web.sd_model = model
    with pytest.raises(IncompatibleModelError, match="No checkpoint is loaded"):
        host.unet()
    assert host.loaded_unet() is None
    assert host.loaded_text_width() is None


def test_the_checkpoint_in_memory_is_looked_at_without_loading_one(web: A1111, host: Any) -> None:
    assert host.loaded_unet() is web.sd_model.model.diffusion_model
    assert host.loaded_text_width() == host.text_width() == POOLED


def test_a_checkpoint_with_one_text_encoder_has_no_pooled_text(web: A1111, host: Any) -> None:
    del web.sd_model.conditioner.embedders[1]
    assert host.text_width() is None


def test_content_is_read_as_it_stands_whatever_a_job_adds(web: A1111, host: Any) -> None:
    plain = host.checkpoint_text_embeds(["a (red) dog [old]"])
    assert web.sd_model.read[-1] == r"a \(red\) dog \[old\]"
    web.loaded_networks.append("a lora")
    assert torch.equal(host.checkpoint_text_embeds(["A (red) dog [old]"]), plain)
    assert web.loaded_networks == ["a lora"]
    assert (plain.shape, plain.dtype) == ((1, POOLED), torch.float32)


def test_a_lora_is_back_after_an_error(web: A1111, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    web.loaded_networks.append("a lora")
    monkeypatch.setattr(web.sd_model, "get_learned_conditioning", lambda texts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        host.checkpoint_text_embeds(["a dog"])
    assert web.loaded_networks == ["a lora"]


def test_without_emphasis_brackets_need_no_escape(web: A1111, host: Any) -> None:
    web.opts.data["emphasis"] = "None"
    host.checkpoint_text_embeds(["a (Red) dog"])
    assert web.sd_model.read[-1] == "a (Red) dog"


def test_the_webuis_tokenizer_stands_in_for_one_that_a_clip_file_lacks(host: Any) -> None:
    assert host.tokenizer()("a dog") == sys.modules["modules.sd_hijack_open_clip"].tokenizer.encode("a dog")


def test_a_textual_inversion_changes_the_checkpoints_name_where_it_is_named(web: A1111, host: Any) -> None:
    before = host.checkpoint_name(["a dog in Mystyle"])
    web.word_embeddings["mystyle"] = SimpleNamespace(vec={"clip_g": torch.ones(1, 4)})
    taught = host.checkpoint_name(["a dog in Mystyle"])
    assert taught != before
    assert host.checkpoint_name(["a dog"]) == before
    web.word_embeddings["mystyle"] = SimpleNamespace(vec=torch.zeros(1, 4))
    assert host.checkpoint_name(["a dog in Mystyle"]) not in (before, taught)


def test_a_checkpoint_whose_file_is_gone_has_no_name(web: A1111, host: Any) -> None:
    web.sd_model.sd_checkpoint_info.filename = str(web.data_path / "gone.safetensors")
    assert host.checkpoint_name(["a dog"]) is None


def test_two_checkpoints_have_two_names(web: A1111, host: Any) -> None:
    first = host.checkpoint_name([])
    web.sd_model = web.checkpoint("other.safetensors")
    assert host.checkpoint_name([]) != first


@pytest.mark.parametrize(("lowvram", "moved"), [(True, 1), (False, 0)])
def test_room_is_made_for_the_encoder_where_memory_is_short(
    web: A1111, host: Any, monkeypatch: pytest.MonkeyPatch, lowvram: bool, moved: int
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("modules.lowvram.send_everything_to_cpu", lambda: calls.append("moved"))
    monkeypatch.setattr("modules.devices.torch_gc", lambda: calls.append("tidied"))
    web.sd_model.lowvram = lowvram
    with host.room_for_encoder():
        assert "reading the reference" in str(web.state.textinfo)
    assert calls == ["moved"] * moved + ["tidied"]
    assert web.state.textinfo is None


@pytest.mark.parametrize(
    ("device", "no_half", "dtype"),
    [("cuda", False, torch.float16), ("cuda", True, torch.float32), ("cpu", False, torch.float32)],
)
def test_encoders_run_in_half_precision_on_a_gpu_alone(
    web: A1111, host: Any, monkeypatch: pytest.MonkeyPatch, device: str, no_half: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("modules.devices.device", torch.device(device))
    web.cmd_opts.no_half = no_half
    assert host.encoder_device() == (torch.device(device), dtype)


@pytest.mark.parametrize("pristine", [True, False])
def test_a_clip_file_reads_content_where_that_is_set(
    web: A1111, host: Any, monkeypatch: pytest.MonkeyPatch, pristine: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(type(host.files), "text_tower", lambda *_, pristine: asked.append(pristine))
    web.opts.data["instantstyle_pristine_text"] = pristine
    host.text_tower(None)
    assert asked == [pristine]


def test_our_models_are_computed_in_their_own_numbers(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the WebUI casts whole classes of layers by giving them another forward."""
    uncast = web.library("hosts.a1111_casting").uncast
    own, cast = LINEAR.forward, lambda self, x: x.half()
    monkeypatch.setattr(LINEAR, "org_forward", own, raising=False)
    monkeypatch.setattr(LINEAR, "forward", cast)
    with uncast():
        assert LINEAR(2, 2)(torch.ones(1, 2)).dtype == torch.float32
        assert not hasattr(LINEAR, "org_forward")
    assert (LINEAR.forward, LINEAR.org_forward) == (cast, own)


class Derived(torch.nn.Linear):
    """A class whose parent is cast."""


@pytest.mark.parametrize("fails", [True, False])
def test_classes_that_are_cast_are_so_afterwards_and_their_heirs_are_left_alone(
    web: A1111, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    own, cast = LINEAR.forward, lambda self, x: x.half()
    monkeypatch.setattr("modules.devices.patch_module_list", [LINEAR, Derived])
    monkeypatch.setattr(LINEAR, "org_forward", own, raising=False)
    monkeypatch.setattr(LINEAR, "forward", cast)
    with contextlib.suppress(ZeroDivisionError), web.library("hosts.a1111_casting").uncast():
        assert Derived(2, 2)(torch.ones(1, 2)).dtype == torch.float32
        assert not fails or 1 / 0
    assert (LINEAR.forward, LINEAR.org_forward) == (cast, own)
    assert not {"forward", "org_forward"} & set(vars(Derived))


def test_our_models_are_not_computed_under_autocast(web: A1111) -> None:
    linear = torch.nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(torch.ones(1, 2)).dtype == torch.bfloat16
        with web.library("hosts.a1111_casting").uncast():
            assert linear(torch.ones(1, 2)).dtype == torch.float32


def test_controlnets_folders_are_looked_into(web: A1111, tmp_path: Path) -> None:
    (web.data_path / "extensions/sd-webui-controlnet/models").mkdir(parents=True)
    (web.data_path / "extensions/sd-webui-controlnet/annotator/downloads/clip_vision").mkdir(parents=True)
    folders = web.library("hosts.folders")
    assert web.data_path / "extensions/sd-webui-controlnet/models" in folders.adapter_folders()
    assert web.data_path / "extensions/sd-webui-controlnet/annotator/downloads/clip_vision" in folders.encoder_folders()
    assert folders.adapter_folders()[0] == web.models_path / "ControlNet"
    assert folders.encoder_folders()[0] == web.models_path / "clip_vision"


def test_what_other_models_are_given_holds_no_marks(web: A1111, host: Any) -> None:
    """SD 1.5's conditioning is a tensor."""
    cond = torch.ones(1, 7, 4)
    host.mark_rows(SimpleNamespace(text_cond=cond, text_uncond=cond))
    assert web.library("hosts.webui_host").marks_in(cond) is None


@pytest.mark.parametrize("name", ["modules_forge", "ldm_patched.modules.model_management"])
def test_a_package_of_forge_alone_makes_no_forge(web: A1111, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Extensions bring some of them along."""
    monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert type(web.library("hosts.live").live_host()).__name__ == "A1111Host"


def test_there_is_one_host_and_one_job_also_after_a_reload(web: A1111, host: Any) -> None:
    job = web.library("job").live_job()
    web.reload_ui()
    assert web.library("job").live_job() is job
    assert job.host is host
    assert web.generate(unit()).images
