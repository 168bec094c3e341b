"""In half precision the VAE stays what its file says, also after samples were drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lib_instantstyle.standalone import models as opening
from lib_instantstyle.standalone.training.materials import Place, open_frozen
from lib_instantstyle.standalone.training.sheets import vae_in_the_dtype_of_the_unet

from .conftest import SettingsMaker

CPU = torch.device("cpu")


def same(ours: Any, theirs: Any) -> bool:
    wanted = theirs.state_dict()
    return all(torch.equal(tensor, wanted[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_folders_vae_is_not_rounded(settings: SettingsMaker, half: torch.dtype) -> None:
    exact = open_frozen(settings(), Place(CPU, torch.float32))
    pipe = open_frozen(settings(), Place(CPU, half))
    parts = {name: getattr(pipe, name).dtype for name in ("unet", "text_encoder", "text_encoder_2", "vae")}
    assert parts == {"unet": half, "text_encoder": half, "text_encoder_2": half, "vae": torch.float32}
    assert same(pipe.vae, exact.vae)
    assert not any(weight.requires_grad for weight in pipe.vae.parameters())
    with vae_in_the_dtype_of_the_unet(pipe):
        assert pipe.vae.dtype == half
    assert same(pipe.vae, exact.vae)


@pytest.mark.parametrize("published", [{None}, {"fp16"}])
def test_of_the_hub_the_exact_vae_is_taken_where_there_is_one(
    models: Path, monkeypatch: pytest.MonkeyPatch, published: set[str | None]
) -> None:
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline

    asked: list[str | None] = []

    def load_vae(source: str, **given: Any) -> Any:
        asked.append(given.get("variant"))
        if asked[-1] not in published:
            raise OSError("no such variant")
        assert (given["subfolder"], given["torch_dtype"]) == ("vae", torch.float32)
        return "the VAE"

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", load_vae)
    monkeypatch.setattr(StableDiffusionXLPipeline, "from_pretrained", lambda _, **given: Pipe(given["vae"]))
    found = opening.open_pipeline("owner/name", CPU, torch.float16, exact_vae=True)
    assert (found.vae, asked[-1]) == ("the VAE", published.pop())


class Pipe:
    def __init__(self, vae: Any) -> None:
        self.vae = vae

    def to(self, _: Any) -> Any:
        return self
