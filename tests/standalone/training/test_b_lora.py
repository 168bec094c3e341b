"""A B-LoRA: it learns from one picture, and is the same LoRA in training, in this project and in diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_instantstyle.files.loras import inspect_lora
from lib_instantstyle.files.tensor_files import open_tensors
from lib_instantstyle.standalone import StandaloneHost
from lib_instantstyle.standalone.cli import training as command
from lib_instantstyle.standalone.cli.app import parser
from lib_instantstyle.standalone.training import Settings, train
from lib_instantstyle.standalone.training.checkpoints import Checkpoints
from lib_instantstyle.standalone.training.lora import LEAVES, LearningLora
from lib_instantstyle.standalone.training.materials import Materials, find_files
from lib_instantstyle.standalone.training.prediction import ModelInput, prediction_of
from lib_instantstyle.standalone.training.settings import B_LORA
from lib_instantstyle.units.errors import InstantStyleError
from lib_instantstyle.units.unit import StyleUnit

from ...tiny import picture
from ...tiny.pipelines import SIDE
from .test_learning import call_inputs, opened

BLOCKS = CONTENT, STYLE = "up_blocks.0.attentions.0", "up_blocks.0.attentions.1"


@pytest.fixture
def settings(models: Path, tmp_path: Path, opened_once: None) -> Any:
    """A short training on one picture without a caption."""
    (tmp_path / "data").mkdir()
    picture(3, (SIDE + 9, SIDE)).save(tmp_path / "data/one.png")

    def made(**changes: Any) -> Settings:
        given: dict[str, Any] = {"base": models / "shallow", "data": tmp_path / "data/one.png", "out": tmp_path / "run"}
        return Settings.for_b_lora(
            **{**given, "steps": 3, "rank": 4, "rate": 1e-2, "cpu": True, "quiet": True, **changes}
        )

    return made


def predicted(materials: Materials, acting: frozenset[int]) -> Tensor:
    """The training's own prediction for fixed inputs."""
    inputs = call_inputs(materials)
    added = inputs["added_cond_kwargs"]
    call = (inputs["sample"], torch.tensor([500, 500]), inputs["encoder_hidden_states"])
    given = ModelInput(*call, added["text_embeds"], added["time_ids"], torch.zeros(2, 1))
    prediction = prediction_of(materials.pipe.unet, materials.modules, materials.adapter)
    prediction.attach()
    try:
        return prediction(given, acting).detach()
    finally:
        prediction.detach()


def test_it_is_the_same_lora_in_training_here_and_in_diffusers(settings: Any, tmp_path: Path) -> None:
    outcome = train(settings())
    check_keys(outcome.adapter)
    materials = opened(settings(out=tmp_path / "other"))
    unet, (group,) = materials.pipe.unet, materials.groups
    plain = predicted(materials, frozenset())
    with torch.no_grad():
        assert torch.equal(plain, predicted(materials, frozenset(layer.index for layer in group.layers)))  # not trained
        state = Checkpoints(settings().out, 1).latest()
        assert state is not None
        materials.adapter.load_state_dict({name: one.half().float() for name, one in state["adapter"].items()})
        wanted = predicted(materials, frozenset(layer.index for layer in group.layers))
        assert (wanted - plain).abs().max() > 1e-3
        assert torch.equal(unet(**call_inputs(materials)).sample, plain)
        found = [_here(materials, outcome.adapter), _in_diffusers(materials, outcome.adapter)]
    for one in found:
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-5)


def check_keys(file: Path) -> None:
    """The published ones, of both blocks."""
    places = (f"{block}.transformer_blocks.{depth}.{leaf}" for block in BLOCKS for depth in (0, 1) for leaf in LEAVES)
    expected = {f"unet.{place}.lora.{part}.weight" for place in places for part in ("down", "up")}
    assert set(open_tensors(file).shapes) == expected
    assert {target.block for target in inspect_lora(file).pairs} == set(BLOCKS)


def _here(materials: Materials, file: Path) -> Tensor:
    host = StandaloneHost(materials.pipe, [file])
    unit = {"method": "lora", "lora": "b-lora", "preset": "custom", "blocks": {CONTENT: 1.0, STYLE: 1.0}}
    host.session.attach(host.session.plan([StyleUnit.from_dict(unit)]))
    host.session.call.cond_rows = (False, True)
    made: Tensor = materials.pipe.unet(**call_inputs(materials)).sample
    host.session.detach()
    return made


def _in_diffusers(materials: Materials, file: Path) -> Tensor:
    pytest.importorskip("peft", reason="diffusers loads LoRAs with peft")
    materials.pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    try:
        made: Tensor = materials.pipe.unet(**call_inputs(materials)).sample
    finally:
        materials.pipe.unload_lora_weights()
    return made


def test_a_stopped_training_goes_on_to_the_very_same_weights(settings: Any, tmp_path: Path) -> None:
    train(settings(steps=2, out=tmp_path / "whole"))
    train(settings(steps=1, out=tmp_path / "parts"))
    train(settings(steps=2, out=tmp_path / "parts", resume=True))
    whole, parts = (Checkpoints(tmp_path / name, 1).latest() for name in ("whole", "parts"))
    assert whole is not None
    assert parts is not None
    assert all(torch.equal(parts["adapter"][name], one) for name, one in whole["adapter"].items())


def test_the_prompt_stands_for_a_caption_that_is_not_there(settings: Any, tmp_path: Path) -> None:
    assert [entry.captions for entry in find_files(settings()).entries] == [("A [v]",)]
    (tmp_path / "data/one.txt").write_text("a lamp in ink style")
    assert [entry.captions for entry in find_files(settings()).entries] == [("a lamp in ink style",)]


def test_pairs_begin_as_published(settings: Any) -> None:
    lora = opened(settings(rank=64)).adapter
    assert isinstance(lora, LearningLora)
    downs = torch.cat([lora.pair(path).down.flatten() for path in lora.places])
    assert not any(lora.pair(path).up.any() for path in lora.places)
    torch.testing.assert_close(downs.std().item() * 64, 1.0, rtol=0.02, atol=0)
    assert abs(downs.mean().item()) < 1e-3


def test_the_command_takes_the_recipe_of_the_kind() -> None:
    words = ["train", "--base", "x", "--data", "one.png", "--out", "run"]
    b_lora = command.settings_of(parser().parse_args([*words, "--kind", B_LORA, "--rate", "1e-4"]))
    assert b_lora == Settings.for_b_lora("x", Path("one.png"), Path("run"), rate=1e-4)
    assert (b_lora.steps, b_lora.batch, b_lora.rank, b_lora.drop_text) == (1000, 1, 64, 0)
    base = command.settings_of(parser().parse_args([*words, "--encoder", "e"]))
    assert base == Settings("x", Path("e"), Path("one.png"), Path("run"))


@pytest.mark.parametrize("field", ["encoder", "tokens", "init"])
def test_what_a_b_lora_has_not_is_refused(settings: Any, field: str) -> None:
    with pytest.raises(InstantStyleError, match=f"A B-LoRA has no {field}") as caught:
        train(Settings(**{**vars(settings()), field: 4 if field == "tokens" else Path("x")}))
    assert caught.value.field == field


def test_an_adapter_needs_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(InstantStyleError, match="needs an image encoder; none was given"):
        train(Settings("x", None, tmp_path, tmp_path / "run", cpu=True))
