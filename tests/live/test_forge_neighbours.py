"""The matrix in Forge and its kin: beside the extensions that come with them, and with numbers stored in other ways."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from live_case import Case
from live_kind import kind
from live_quantised import as_gguf, as_nf4, packed, stored_as

pytestmark = pytest.mark.matrix("what comes with it")

HIRES = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, **kind().hires}
TILES = {"Tile Width": 64, "Tile Height": 64, "Tile Overlap": 32}
FREEU = {"B1": 1.4, "B2": 1.5, "S1": 0.9, "S2": 0.2}


def builtin(folder: str, tab: str = "txt2img", **changed: Any) -> dict[str, Any]:
    """Script and arguments of a built-in extension that is switched on, some of its controls set by their labels."""
    import gradio as gr

    from modules import scripts

    runner = scripts.scripts_img2img if tab == "img2img" else scripts.scripts_txt2img
    script = next((one for one in runner.alwayson_scripts if folder in one.filename), None)
    if script is None:
        pytest.skip(f"this WebUI has no {folder}")
    with gr.Blocks():
        controls = script.ui(tab == "img2img")
    labels = [control.label for control in controls]
    assert changed.keys() <= {*labels}, f"its controls are called {labels}"
    first = {labels[0]: True} if labels[0] not in changed else {}
    chosen = {**first, **changed}
    return {script.title(): {"args": [chosen.get(control.label, control.value) for control in controls]}}


def on(*parts: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**settings, "scripts": {name: given for part in parts for name, given in part.items()}}


SAG, PAG = partial(builtin, "sd_forge_sag"), partial(builtin, "sd_forge_perturbed_attention")
TILED = partial(builtin, "sd_forge_multidiffusion", "img2img", **TILES)
CASES = {
    "SAG": lambda: Case(on(SAG()), matters=True),
    "SAG, batch 2": lambda: Case(on(SAG(), batch_size=2)),
    "SAG, hires fix": lambda: Case(on(SAG(), **HIRES)),
    "PAG": lambda: Case(on(PAG()), matters=True),
    "PAG, batch 2": lambda: Case(on(PAG(), batch_size=2)),
    "PAG, hires fix": lambda: Case(on(PAG(), **HIRES)),
    "SAG and PAG, AND": lambda: Case(on(SAG(), PAG(), prompt="a cat AND a dog")),
    "FreeU": lambda: Case(on(builtin("sd_forge_freeu", **FREEU)), matters=True),
    "Kohya HRFix": lambda: Case(on(builtin("sd_forge_kohya_hrfix")), matters=True),
    "HyperTile": lambda: Case(on(builtin("sd_forge_hypertile", **{"Tile Size": 16}))),
    "Dynamic Thresholding": lambda: Case(on(builtin("sd_forge_dynamic_thresholding")), matters=True),
    "StyleAlign, batch 2": lambda: Case(on(builtin("sd_forge_stylealign"), batch_size=2)),
    "Never OOM": lambda: Case(on(builtin("sd_forge_neveroom"))),
    "MultiDiffusion": lambda: Case(on(TILED(Method="MultiDiffusion")), tab="img2img"),
    "Mixture of Diffusers": lambda: Case(on(TILED(Method="Mixture of Diffusers")), tab="img2img"),
    "token merging": lambda: Case({"options": {"token_merging_ratio": 0.5}}),
}


@pytest.fixture(autouse=True)
def _is_a_fork():
    if not kind().is_fork:
        pytest.skip("these come with Forge and its kin")


@pytest.mark.parametrize("name", CASES)
def test_case(examine, name):
    examine(CASES[name]())


STORED = {
    "float8 e4m3": (torch.float8_e4m3fn, {}),
    "float8 e5m2": (torch.float8_e5m2, {}),
    "float8 e4m3, LoRA": (torch.float8_e4m3fn, {"prompt": "a cat <lora:tiny-lora:1>"}),
}


@pytest.mark.parametrize("name", STORED)
def test_numbers_of_eight_bits(examine, name):
    if not kind().has_backend:
        pytest.skip("chosen by a flag here, for the whole process")
    dtype, settings = STORED[name]
    examine(Case(settings, inside=lambda: stored_as(dtype), matters=True))


@pytest.mark.parametrize("pack", [as_gguf, as_nf4], ids=["GGUF", "nf4"])
def test_packed_layers(webui, examine, pack):
    if not kind().has_backend:
        pytest.skip("it reads no such files")
    if pack is as_nf4 and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    examine(Case(inside=lambda: packed(lambda: webui.unet, pack), matters=True))
