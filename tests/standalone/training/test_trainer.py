"""Whole trainings: they go on to the same curve, leave the frozen alone, learn, and end in a published file."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_instantstyle.files.adapters import inspect_adapter
from lib_instantstyle.files.tensor_files import open_tensors
from lib_instantstyle.standalone.training import Settings, train
from lib_instantstyle.standalone.training.checkpoints import Checkpoints
from lib_instantstyle.standalone.training.materials import Place, open_materials
from lib_instantstyle.standalone.training.settings import KINDS
from lib_instantstyle.standalone.training.trainer import Run
from lib_instantstyle.units.errors import InstantStyleError

from ..forked import start
from .conftest import SettingsMaker, write_pictures
from .test_shards import png, write_shard

ROOT = Path(__file__).parents[3]


def curve(out: Path) -> list[list[str]]:
    """Step, loss, rate and group of each line."""
    return [line.split(",")[:4] for line in (out / "loss.csv").read_text().splitlines()[1:]]


def weights(out: Path) -> dict[str, Tensor]:
    """The adapter in full precision."""
    state = Checkpoints(out, 1).latest()
    assert state is not None
    return state["adapter"]


def command(settings: Settings, *more: str) -> list[str]:
    """The command line of short settings, to be run by an interpreter with -m."""
    given = {"--base": settings.base, "--encoder": settings.encoder, "--data": settings.data, "--out": settings.out}
    given |= {"--steps": settings.steps, "--batch": settings.batch, "--rate": settings.rate}
    given |= {"--save-every": settings.save_every, "--accumulate": settings.accumulate}
    words = [str(word) for pair in given.items() for word in pair]
    words += [word for spec in settings.blocks for word in ("--blocks", spec)]
    return ["-m", "lib_instantstyle", "train", *words, "--cpu", "--quiet", *more]


def test_a_stopped_training_goes_on_to_the_very_same_curve(settings: SettingsMaker, tmp_path: Path) -> None:
    given: dict[str, Any] = {"blocks": ("style", "layout=0.5"), "warmup": 3, "noise_offset": 0.1, "clip": 1.0}
    train(settings(**given, steps=7, out=tmp_path / "whole"))
    train(settings(**given, steps=3, out=tmp_path / "parts"))
    with (tmp_path / "parts/loss.csv").open("a") as file:
        file.write("4,9.9,0.1,style,0.1\n5,9.")  # as a run that was killed between two checkpoints leaves it
    (tmp_path / "parts/checkpoints/step-0000004.pt").write_bytes(b"cut short")
    train(settings(**given, steps=7, out=tmp_path / "parts", resume=True))
    assert len(curve(tmp_path / "whole")) == 7
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    parts, whole = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("data", ["folder", "shards"])
def test_a_training_on_data_encoded_as_it_comes_resumes_too(settings: SettingsMaker, tmp_path: Path, data: str) -> None:
    source = write_pictures(tmp_path / "folder", 3)
    if data == "shards":
        source = write_shard(tmp_path / "s.tar", {f"{number}.png": png(number) for number in range(5)})
    given: dict[str, Any] = {"data": source, "cache": False}
    train(settings(**given, steps=5, out=tmp_path / "whole"))
    train(settings(**given, steps=2, out=tmp_path / "parts"))
    train(settings(**given, steps=5, out=tmp_path / "parts", resume=True))
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_a_killed_training_goes_on_to_the_very_same_curve(settings: SettingsMaker, tmp_path: Path) -> None:
    given = settings(steps=300, save_every=2, out=tmp_path / "killed")
    running = start(command(given)[2:], tmp_path)
    until = time.monotonic() + 240
    while len(Checkpoints(given.out, 2).paths()) < 2 and running.process.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert running.ended(timeout=0) == -signal.SIGKILL
    reached = int(Checkpoints(given.out, 2).paths()[-1].stem.removeprefix("step-"))
    train(settings(steps=reached + 3, save_every=2, out=given.out, resume=True))
    train(settings(steps=reached + 3, out=tmp_path / "whole"))
    assert curve(given.out) == curve(tmp_path / "whole")


def test_a_checkpoint_of_another_training_is_refused(settings: SettingsMaker) -> None:
    train(settings(steps=1))
    with pytest.raises(InstantStyleError, match="--resume"):
        train(settings(steps=2))
    for name, value in (("rate", 0.5), ("seed", 1), ("blocks", ("layout",)), ("accumulate", 2)):
        with pytest.raises(InstantStyleError, match=name):
            train(settings(steps=2, resume=True, **{name: value}))
    assert len(curve(train(settings(steps=2, resume=True)).adapter.parent)) == 2


def test_a_copy_of_the_models_goes_on_whatever_its_time(settings: SettingsMaker, tmp_path: Path) -> None:
    given = settings(steps=1)
    train(given)
    for name in ("base", "encoder"):
        shutil.copytree(getattr(given, name), tmp_path / name)
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (1, 1))
    (tmp_path / "base/.cache").mkdir()
    (tmp_path / "base/.cache/when.txt").write_text("downloaded today")
    copied = settings(steps=2, resume=True, base=tmp_path / "base", encoder=tmp_path / "encoder")
    assert train(copied).steps == 2
    with (tmp_path / "base/vae/config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(InstantStyleError, match="base"):
        train(copied)


def test_what_the_frozen_networks_compute_in_is_compared_too(settings: SettingsMaker) -> None:
    materials = open_materials(settings(), Place(torch.device("cpu"), torch.float32))
    half = open_materials(settings(cache=False), Place(torch.device("cpu"), torch.bfloat16))
    ours, theirs = (one.identity(2, 1) for one in (materials, half))
    assert {name for name in ours if ours[name] != theirs[name]} == {"precision", "cache"}


def test_passes_of_small_batches_equal_one_large_batch(settings: SettingsMaker, tmp_path: Path) -> None:
    train(settings(rate=1e-3, batch=4, out=tmp_path / "large"))
    train(settings(rate=1e-3, batch=1, accumulate=4, out=tmp_path / "small"))
    large, small = weights(tmp_path / "large"), weights(tmp_path / "small")
    for name in large:
        torch.testing.assert_close(small[name], large[name], rtol=0, atol=1e-5)  # of some 4e-3 that they have moved


def test_nothing_but_the_adapter_changes(settings: SettingsMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, dict[str, Any]]] = []
    began = Run.__enter__

    def entered(run: Run) -> Run:
        parts = run.materials.pipe.components
        networks = {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}
        seen.append((networks, {name: copy.deepcopy(part.state_dict()) for name, part in networks.items()}))
        return began(run)

    monkeypatch.setattr(Run, "__enter__", entered)
    train(settings(blocks=("original",), sample_every=3, sample_steps=1))
    ((networks, before),) = seen
    assert set(networks) >= {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in networks["unet"].modules())
    for name, network in networks.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in network.state_dict().items())
        assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())


def test_only_layers_that_acted_have_learnt(settings: SettingsMaker, tmp_path: Path) -> None:
    groups = ("style", "layout=0.000001")  # too small a share to be drawn
    train(settings(blocks=groups, steps=3))
    train(settings(blocks=groups, steps=1, rate=1e-30, weight_decay=0, out=tmp_path / "untrained"))
    untrained = weights(tmp_path / "untrained")
    changed = {name for name, tensor in weights(tmp_path / "run").items() if not torch.equal(tensor, untrained[name])}
    moved = {int(name.split(".")[1]) // 2 for name in changed if name.startswith("ip_adapter.")}
    assert moved == {8, 9}  # the style block's two layers of the shallow model, without the layout block's
    assert len(untrained) > len(changed) > 4


def test_layers_that_have_learnt_rest_while_another_group_acts(settings: SettingsMaker) -> None:
    out = train(settings(blocks=("layout", "style"), steps=6, batch=1, save_every=1)).adapter.parent
    assert [line[3] for line in curve(out)][-2:] == ["layout", "style"]
    before, after = (torch.load(path, weights_only=True)["adapter"] for path in Checkpoints(out, 2).paths())
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {int(name.split(".")[1]) // 2 for name in changed if name.startswith("ip_adapter.")} == {8, 9}


def test_the_loss_falls_on_a_few_pictures(settings: SettingsMaker, tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": write_pictures(tmp_path / "two", 2), "blocks": ("original",), "steps": 24}
    train(settings(**given))
    train(settings(**given, rate=1e-30, weight_decay=0, out=tmp_path / "still"))  # the same noise, and nothing learnt
    learnt, still = ([float(line[1]) for line in curve(tmp_path / name)] for name in ("run", "still"))
    assert learnt[0] == still[0]
    assert sum(learnt[-8:]) < 0.994 * sum(still[-8:])  # a UNet of random weights leaves little to learn


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_result_has_the_published_keys_in_half_precision(settings: SettingsMaker, kind: str) -> None:
    adapter = train(settings(kind=kind, steps=1, blocks=("style",))).adapter
    info, file = inspect_adapter(adapter), open_tensors(adapter)
    assert (info.variant, info.tokens) == (kind, KINDS[kind])
    assert sorted(info.layer_widths) == [8, 9]
    assert {file.read(name).dtype for name in file.shapes} == {torch.float16}
    from safetensors import safe_open

    told = safe_open(str(adapter), "pt").metadata()
    assert (told["blocks"], told["kind"], told["steps"]) == ("style=1", kind, "1")


def test_training_goes_on_from_an_adapter_file(settings: SettingsMaker, tmp_path: Path) -> None:
    first, still = train(settings(steps=2)).adapter, {"steps": 1, "rate": 1e-30, "weight_decay": 0}
    second = train(settings(**still, init=first, blocks=("style_and_layout",), out=tmp_path / "on"))
    before, after = open_tensors(first), open_tensors(second.adapter)
    assert len(after.shapes) == len(before.shapes) + 4
    assert all(torch.equal(before.read(name), after.read(name)) for name in before.shapes)
    with pytest.raises(InstantStyleError, match="base adapter"):
        train(settings(kind="plus", init=first, out=tmp_path / "other"))
    with pytest.raises(InstantStyleError, match="4 tokens"):
        train(settings(tokens=8, init=first, out=tmp_path / "other"))


def test_samples_are_drawn_while_it_trains_and_change_nothing(settings: SettingsMaker, tmp_path: Path) -> None:
    given: dict[str, Any] = {"blocks": ("style", "layout"), "steps": 4}
    train(settings(**given, sample_every=2, sample_steps=2, sample_prompts=("a cat", "a rabbit")))
    train(settings(**given, out=tmp_path / "without"))
    sheets = sorted((tmp_path / "run/samples").iterdir())
    assert [path.name for path in sheets] == ["step-0000002.png", "step-0000004.png"]
    assert Image.open(sheets[0]).size == (64 * 5, (64 + 14) * 3)
    assert curve(tmp_path / "run") == curve(tmp_path / "without")


def test_bad_pictures_are_told_and_the_others_train(settings: SettingsMaker, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "some", 2)
    (folder / "broken.png").write_bytes(b"no picture")
    assert [Path(path).name for path in train(settings(data=folder, steps=1)).skipped] == ["broken.png"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 0}, "steps must be 1 or more"),
        ({"size": 100}, "size must be a multiple of 8"),
        ({"drop_image": 0.9, "drop_both": 0.2}, "exceed 1"),
        ({"kind": "faceid"}, "kind must be one of base, plus"),
        ({"random_crop": True}, "--no-cache"),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"data": Path("nowhere")}, "there is no nowhere"),
        ({"data": Path(), "out": Path("run")}, "must not be inside"),
        ({"encoder": Path("nowhere")}, "--encoder must name one"),
        ({"init": Path("nowhere.safetensors")}, "There is no file nowhere"),
        ({"base": "nowhere"}, "no file or folder nowhere"),
        ({"blocks": ("somewhere",)}, "'somewhere' is not a"),
    ],
)
def test_what_cannot_be_honoured_is_refused(settings: SettingsMaker, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InstantStyleError, match=told):
        train(settings(**changes))


def test_the_command_answers_for_machines(settings: SettingsMaker, capsys: pytest.CaptureFixture[str]) -> None:
    from lib_instantstyle.standalone.cli.app import OK, REFUSED, main

    given = command(settings(steps=2), "--json")[2:]
    assert main(given) == OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["adapter"].endswith("adapter.safetensors")
    assert (answer["steps"], answer["blocks"]) == (2, ["style"])
    assert main(given) == REFUSED
    assert json.loads(capsys.readouterr().out)["field"] == "out"
