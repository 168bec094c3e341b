"""The matrix: the same cases again in WebUIs that were started under another condition, each a process of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from live_child import rows_from, run_under
from live_condition import Condition
from live_report import ROWS

EVERYWHERE = "test_everywhere.py"
CONTROLNET = "*controlnet*"
PARTING = ("*negpip*", "*regional-prompter*")
NEIGHBOURS = ("*freeu*", "*dynamic-thresholding*", "*multidiffusion*", "*regional-prompter*", "*incantations*")

# How the WebUI computes on a GPU: as it chooses by itself, and as its flags and settings let people choose.
ON_A_GPU = Condition(device="cuda", precision=(), arithmetic="float16")
GPU_CONDITIONS = {
    "GPU": ON_A_GPU,
    "GPU, --precision half": replace(ON_A_GPU, precision=("--precision", "half")),
    "GPU, --no-half": replace(ON_A_GPU, precision=("--no-half",), arithmetic="tf32"),
    "GPU, --medvram-sdxl": replace(ON_A_GPU, flags=("--medvram-sdxl",)),
    "GPU, --lowvram": replace(ON_A_GPU, flags=("--lowvram",)),
    "GPU, fp8 weights": replace(ON_A_GPU, options={"fp8_storage": "Enable"}),
}
# Name → the condition, and which of the cases are tried under it (pytest's -k; all when empty).
CONDITIONS = {
    "--medvram": (Condition(("--medvram",)), ""),
    "--medvram-sdxl": (Condition(("--medvram-sdxl",)), "batch or hires"),
    "--lowvram": (Condition(("--lowvram",)), ""),
    "no ControlNet": (Condition(extensions=()), "batch or hires"),
    "ControlNet disabled": (Condition(options={"disabled_extensions": ["sd-webui-controlnet"]}), "batch"),
    "our folder first": (Condition(own_name="0-instantstyle"), "controlnet"),
    "our folder last": (Condition(own_name="zz-instantstyle"), "controlnet"),
    # Where a torch cannot do these on a processor (2.1.2 cannot), the WebUI fails by itself, and they are not run.
    "--precision half": (Condition(precision=("--precision", "half"), arithmetic="float16"), ""),
    "fp8 weights, bfloat16 arithmetic": (Condition(options={"fp8_storage": "Enable"}, arithmetic="bfloat16"), ""),
    # On a processor xformers computes in float32 only, and up to version 0.0.20.
    "xformers": (Condition(("--xformers", "--force-enable-xformers"), optimization="xformers"), ""),
}


@pytest.fixture
def under(world, record_property):
    """Runs test files under a condition; each of their tests is a row of the table, and all must pass."""

    def run(condition, name, *arguments):
        rows = rows_from(run_under(condition, world, *arguments), name)
        record_property(ROWS, rows)
        failed = [f"{row.case}: {row.verdict}" for row in rows if row.verdict.startswith("FAILS")]
        assert not failed, "\n".join(failed)

    return run


@pytest.mark.matrix("conditions")
@pytest.mark.parametrize("name", CONDITIONS)
def test_under(under, name):
    condition, chosen = CONDITIONS[name]
    under(condition, name, EVERYWHERE, *(("-k", chosen) if chosen else ()))


@pytest.fixture
def _gpu():
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")


@pytest.mark.usefixtures("_gpu")
@pytest.mark.matrix("conditions")
@pytest.mark.parametrize("name", GPU_CONDITIONS)
def test_on_a_gpu(under, name):
    under(GPU_CONDITIONS[name], name, EVERYWHERE)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.matrix("conditions")
@pytest.mark.parametrize("part", ["attention", "prompts", "sampling", "controlnet"])
def test_the_matrix_on_a_gpu(under, part):
    under(ON_A_GPU, "GPU", f"test_matrix_{part}.py")


@pytest.mark.matrix("neighbours")
def test_beside_neighbours(under):
    """All of them installed, and one after the other switched on."""
    under(Condition(extensions=(CONTROLNET, *NEIGHBOURS)), "all neighbours installed", "test_neighbours.py")


@pytest.mark.matrix("neighbours")
def test_beside_those_that_compute_rows_apart(under):
    under(Condition(extensions=PARTING), "NegPiP and Regional Prompter installed", "test_neighbours_rows.py")


@pytest.mark.matrix("neighbours")
def test_references_beside_others(under):
    """Models on demand and extensions at once: either would leave its mark."""
    condition = Condition(("--medvram",), extensions=(CONTROLNET, "*negpip*"))
    under(condition, "--medvram, ControlNet and NegPiP", "test_references_beside.py")


@pytest.mark.matrix("neighbours")
def test_beside_adetailer(under, webui_folder):
    if not any((webui_folder / "extensions").glob("*adetailer*")):
        pytest.skip("the WebUI in WEBUI_DIR has no ADetailer")
    condition = Condition(("--ad-no-huggingface",), extensions=(CONTROLNET, "*adetailer*"))
    under(condition, "ADetailer", "test_adetailer.py")
