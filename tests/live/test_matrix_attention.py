"""The matrix: everything of the WebUI's own that computes attention in another way, or changes its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from live_case import Case

pytestmark = pytest.mark.matrix("attention")

OPTIMIZATIONS = (
    *("sdp-no-mem - scaled dot product without memory efficient attention", "sdp - scaled dot product"),
    *("sub-quadratic", "V1 - original v1", "InvokeAI", "Doggettx", "None"),
)
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
TILED = {"width": 512, "height": 256, "options": {"hypertile_enable_unet": True, "hypertile_max_tile_unet": 128}}
UPCAST = {"upcast_attn": True}


@contextmanager
def optimized(name: str) -> Iterator[None]:
    """Another choice of "Cross attention optimization", as the settings page makes it."""
    from modules import sd_hijack, shared

    assert name in {"None", *(one.title() for one in sd_hijack.optimizers)}, "no such optimization here"
    before = shared.opts.cross_attention_optimization
    shared.opts.set("cross_attention_optimization", name)
    try:
        yield
    finally:
        shared.opts.set("cross_attention_optimization", before)


CASES = {
    "upcast to float32": Case({"options": UPCAST}),
    "LoRA on the styled layers": Case({"prompt": "a cat <lora:tiny-lora:1>"}, matters=True),
    "LoRA on the text encoder": Case({"prompt": "a cat <lora:tiny-text-lora:1>"}, matters=True),
    "both LoRAs, batch 2, hires fix": Case(
        {"prompt": "a cat <lora:tiny-lora:1> <lora:tiny-text-lora:0.5>", "batch_size": 2, **HIRES},
        rows=("ccuu",),
        matters=True,
    ),
    "hypernetwork": Case({"prompt": "a cat <hypernet:tiny-hypernetwork:1>"}, first_term_is_kept=True, matters=True),
    # Merging stops at layers of the full latents' size, of which SDXL has none: it is on, and changes nothing.
    "token merging": Case({"options": {"token_merging_ratio": 0.5}}),
    "token merging in the hires pass": Case({**HIRES, "options": {"token_merging_ratio_hr": 0.5}}),
    "hypertile": Case(TILED, matters=True),
}


@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_optimization(examine, name):
    examine(Case(inside=lambda: optimized(name), first_term_is_kept=True))


@pytest.mark.parametrize("name", CASES)
def test_case(examine, name):
    examine(CASES[name])
