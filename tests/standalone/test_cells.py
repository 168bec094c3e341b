"""A cell's name hashes what its picture is made of: whatever changes a picture changes the name, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lib_instantstyle.standalone.cli.app import OK, main
from lib_instantstyle.standalone.cli.batch import Setting
from lib_instantstyle.standalone.models import Checkpoint, Model
from lib_instantstyle.standalone.named_files import NamedFiles
from lib_instantstyle.units.unit import StyleUnit

from ..tiny import clip_model, picture
from ..tiny.pipelines import tokenizer

Settings = Callable[..., Setting]
PLAIN = StyleUnit()


@pytest.fixture
def own(models: Path, tmp_path: Path) -> Path:
    """The tiny models, to be changed."""
    return Path(shutil.copytree(models, tmp_path / "own"))


@pytest.fixture
def checkpoint(own: Path) -> Checkpoint:
    """A file that stands for a checkpoint, beside its description's folder; nothing here opens it."""
    path = own / "checkpoint.safetensors"
    shutil.copy(own / "adapters/base.safetensors", path)
    return Checkpoint(path, own / "sdxl")


@pytest.fixture
def setting(own: Path) -> Settings:
    def made(model: Model, *encoders: Path, controlnet: Path | None = None) -> Setting:
        files = NamedFiles([own / "adapters/base.safetensors"], [own / "encoder", *encoders])
        return Setting(model, files, str(controlnet) if controlnet else None, "cpu", "float32")

    return made


DESCRIBING = ["model_index.json", "scheduler/scheduler_config.json", "tokenizer_2/tokenizer_config.json"]


def change(config: Path) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "told": 1}), "utf-8")


@pytest.mark.parametrize("file", DESCRIBING)
def test_what_describes_a_checkpoint_file_is_part_of_the_name(
    checkpoint: Checkpoint, setting: Settings, own: Path, file: str
) -> None:
    before = setting(checkpoint).identity(PLAIN)
    change(own / "sdxl" / file)
    assert setting(checkpoint).identity(PLAIN) != before


def test_a_description_is_the_same_wherever_it_lies_and_whatever_lies_beside_it(
    checkpoint: Checkpoint, setting: Settings, own: Path
) -> None:
    before = setting(checkpoint).identity(PLAIN)
    elsewhere = Path(shutil.copytree(own / "sdxl", own / "elsewhere", copy_function=shutil.copyfile))
    (elsewhere / "results").mkdir()
    (elsewhere / "results/index.json").write_text("{}")
    assert setting(Checkpoint(checkpoint.path, elsewhere)).identity(PLAIN) == before


def test_the_text_tower_that_reads_content_is_part_of_the_name_where_there_is_content(
    setting: Settings, own: Path
) -> None:
    clip_model().save_pretrained(own / "full", safe_serialization=True)
    tokenizer(own / "full")

    def names() -> list[dict[str, str]]:
        units = (PLAIN, replace(PLAIN, content_prompt="a cat"))
        return [setting(own / "sdxl", own / "full").identity(unit) for unit in units]

    before = names()
    change(own / "full/vocab.json")
    same, other = (new == old for new, old in zip(names(), before))
    assert same
    assert not other


@pytest.mark.parametrize("part", ["encoder", "controlnet"])
def test_the_configs_beside_encoder_and_controlnet_are_part_of_the_name(
    setting: Settings, own: Path, part: str
) -> None:
    weights = own / "controlnet/diffusion_pytorch_model.safetensors"
    before = setting(own / "sdxl", controlnet=weights).identity(PLAIN)
    config = own / part / "config.json"
    told = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**told, "num_attention_heads": 4, "attention_head_dim": [1, 2, 2]}), "utf-8")
    assert setting(own / "sdxl", controlnet=weights).identity(PLAIN) != before


def test_pictures_of_another_scheduler_are_made_anew(single_file: Path, tmp_path: Path) -> None:
    picture(0).save(tmp_path / "wave.png")
    files = {"--model": single_file, "--adapter": tmp_path / "adapter.safetensors", "--encoder": tmp_path / "encoder"}
    files |= {"--style": tmp_path / "wave.png", "--out": tmp_path / "out"}
    given = ["stylize", *(str(word) for pair in files.items() for word in pair), "--prompt", "a cat", "--steps", "1"]
    given += ["--width", "64", "--height", "64", "--quiet"]
    assert [main(given), main(given)] == [OK, OK]
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
    scheduler = tmp_path / "tiny/scheduler/scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace('"epsilon"', '"v_prediction"'))
    assert main(given) == OK
    first, second = ((path.read_bytes()) for path in (tmp_path / "out").glob("*.png"))
    assert first != second


def test_results_inside_a_diffusers_folder_are_no_part_of_it_and_its_weights_are(setting: Settings, own: Path) -> None:
    before = setting(own / "sdxl").identity(PLAIN)
    (own / "sdxl/results").mkdir()
    (own / "sdxl/results/index.json").write_text("{}")
    assert setting(own / "sdxl").identity(PLAIN) == before
    weights = own / "sdxl/vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert setting(own / "sdxl").identity(PLAIN) != before
