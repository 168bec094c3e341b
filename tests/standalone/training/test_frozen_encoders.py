"""Which image encoder a folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_instantstyle.standalone.training.frozen_encoders import find_encoder
from lib_instantstyle.units.errors import EncoderNotFoundError

from ...tiny import vision_model
from ...tiny.clip import open_clip_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One encoder twice, as Hugging Face publishes it."""
    model = vision_model()
    model.save_pretrained(tmp_path, safe_serialization=True)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path


def test_one_encoder_in_two_formats_is_one(folder: Path) -> None:
    assert find_encoder(folder).path == folder / "model.safetensors"


def test_open_clips_file_of_the_same_encoder_is_no_other(folder: Path) -> None:
    save_file(open_clip_tensors(vision_model()), str(folder / "open_clip_model.safetensors"))
    assert find_encoder(folder).path == folder / "model.safetensors"


@pytest.mark.parametrize("other", ["another.safetensors", "inner/model.safetensors"])
def test_what_may_be_another_encoder_is_refused(folder: Path, other: str) -> None:
    (folder / "inner").mkdir()
    save_file(vision_model().state_dict(), str(folder / other))
    with pytest.raises(EncoderNotFoundError, match="--encoder must name one"):
        find_encoder(folder)


def test_encoders_of_other_sizes_are_two(folder: Path) -> None:
    save_file(vision_model(projection_dim=32).state_dict(), str(folder / "open_clip_model.safetensors"))
    with pytest.raises(EncoderNotFoundError, match="--encoder must name one"):
        find_encoder(folder)
