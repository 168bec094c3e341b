"""Beside other extensions that reach into the UNet or the sampler, switched on; test_matrix_conditions.py runs this.

FreeU knows the layers of a real SDXL by their widths; it is told the tiny checkpoint's instead.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import CodeType
from typing import Any

import pytest
import tiny_shapes
from live_case import Case
from test_matrix_sampling import HIRES

pytestmark = [pytest.mark.under_condition, pytest.mark.matrix("neighbours")]

FREEU = {"enable": True, "stage_infos": [{"backbone_factor": 1.4, "skip_factor": 0.7} for _ in range(3)]}
THRESHOLDING = [True, 3.0, 99.0, "Half Cosine Up", 1.0, "Half Cosine Up", 1.0, 4.0, True, "MEAN", "AD", 0.9]
TILES = [8, 8, 4, 4]  # width, height and overlap in latents, and how many at once: two tiles of the usual picture
WIDTHS = ((1280, 640, 320), (tiny_shapes.WIDE, tiny_shapes.MEDIUM, tiny_shapes.NARROW))


def tiled(method: str) -> list[Any]:
    size, upscaling, inversion = [False, True, 96, 64], ["None", 1], [False, 10, 1, 1, 64]
    return [True, method, *size, *TILES, *upscaling, *inversion, False]


def regional(mode: str) -> list[Any]:
    """Two columns."""
    split = ["Matrix", "Columns", "Mask", "Prompt", "1,1", "0.2"]
    return [True, False, *split, False, False, False, mode, [], "0", "0", "0.4", None, "0", "0", False]


def incantation(**values: Any) -> list[Any]:
    """Incantations' arguments as they are by default, some of them changed; by the elements' names."""
    import gradio as gr

    from modules import scripts

    script = next(one for one in scripts.scripts_txt2img.alwayson_scripts if one.title() == "Incantations")
    with gr.Blocks():
        controls = script.ui(False)
    assert values.keys() <= {control.elem_id for control in controls}
    return [values.get(control.elem_id, control.value) for control in controls]


def on(script: str, args: list[Any], **settings: Any) -> dict[str, Any]:
    return {**settings, "scripts": {script: {"args": args}}}


@contextmanager
def freeu_knows_tiny_widths():
    from lib_free_u import unet

    hijack = unet.free_u_cat_hijack
    code: CodeType = hijack.__code__
    constants = tuple(WIDTHS[1] if one == WIDTHS[0] else one for one in code.co_consts)
    assert constants != code.co_consts, "FreeU has another list of widths than this test knows"
    hijack.__code__ = code.replace(co_consts=constants)
    try:
        yield
    finally:
        hijack.__code__ = code


DYNAMIC, TILED, REGIONAL = "Dynamic Thresholding (CFG Scale Fix)", "Tiled Diffusion", "Regional Prompter"
COLUMNS = {"prompt": "a cat BREAK a dog", "negative_prompt": "a house"}
TILED_VAE = [True, 256, 48, False, True, True, False]
# Name → pattern of the extension's folder, and the case; made late, because some ask the WebUI.
NEIGHBOURS = {
    "FreeU": ("*freeu*", lambda: Case(on("FreeU", [FREEU]), inside=freeu_knows_tiny_widths, matters=True)),
    "FreeU, hires fix": ("*freeu*", lambda: Case(on("FreeU", [FREEU], **HIRES), inside=freeu_knows_tiny_widths)),
    "Dynamic Thresholding": ("*dynamic-thresholding*", lambda: Case(on(DYNAMIC, THRESHOLDING), matters=True)),
    "Dynamic Thresholding, hires fix": ("*dynamic-thresholding*", lambda: Case(on(DYNAMIC, THRESHOLDING, **HIRES))),
    "Tiled Diffusion: MultiDiffusion": (
        "*multidiffusion*",
        lambda: Case(on(TILED, tiled("MultiDiffusion")), rows=("cucu",), matters=True),
    ),
    "Tiled Diffusion: Mixture of Diffusers": (
        "*multidiffusion*",
        lambda: Case(on(TILED, tiled("Mixture of Diffusers")), rows=("cucu",), matters=True),
    ),
    "Tiled VAE": ("*multidiffusion*", lambda: Case(on("Tiled VAE", TILED_VAE))),
    "Regional Prompter: Attention": (
        "*regional-prompter*",
        lambda: Case(
            on(REGIONAL, regional("Attention"), **COLUMNS), rows=("c u",), first_term_is_kept=True, matters=True
        ),
    ),
    "Regional Prompter: Latent": (
        "*regional-prompter*",
        lambda: Case(on(REGIONAL, regional("Latent"), **COLUMNS), rows=("c c u",), matters=True),
    ),
    "Incantations: SEG": (
        "*incantations*",
        lambda: Case(on("Incantations", incantation(seg_active=True, seg_blur_sigma=11.0)), matters=True),
    ),
    "Incantations: SCFG": (
        "*incantations*",
        lambda: Case(on("Incantations", incantation(scfg_active=True, scfg_scale=1.0)), matters=True),
    ),
    "Incantations: PAG": (
        "*incantations*",
        lambda: Case(on("Incantations", incantation(pag_active=True, pag_scale=3.0)), rows=("cu cc",), matters=True),
    ),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_case(examine, world, name):
    pattern, case = NEIGHBOURS[name]
    if not world.has(pattern):
        pytest.skip(f"the WebUI in WEBUI_DIR has no extension {pattern}")
    examine(case())
