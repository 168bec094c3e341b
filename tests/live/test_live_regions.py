"""Regions, curves and AdaIN in a real WebUI, alone and together, against the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from live_kind import kind
from live_world import as_base64, picture
from oracle import LAYOUT, STYLE, Styling
from PIL import Image

ONE, TWO = picture(0), picture(1)
IMAGE, OTHER = as_base64(ONE), as_base64(TWO)
GREYS = Image.fromarray(np.random.default_rng(7).integers(0, 256, (120, 200), dtype=np.uint8))
MASK = torch.tensor(np.asarray(GREYS, np.float32))[None, None] / 255
LEFT = Image.new("L", (2, 1))
LEFT.putpixel((0, 0), 255)
HALF = torch.tensor([[[[1.0, 0.0]]]])
REGION = {"image": IMAGE, "mask": as_base64(GREYS)}
WIDE = {"width": 200, "height": 120}  # 25 × 15 in the latent: odd at every depth
HIRES = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, **kind().hires}
FADING = ((1.0, 0.75, 0.5, 0.25), (1.0, 0.5))  # of four steps, and of two

CASES = {
    "a region": [(REGION, Styling((ONE,), {STYLE: 1.0}, region=MASK))],
    "a region in two blocks of two depths": [
        (
            {**REGION, "preset": "custom", "blocks": {"up_blocks.0.attentions.1": 1, "up_blocks.1.attentions.1": 0.5}},
            Styling((ONE,), {STYLE: 1.0, "output_blocks.4.1": 0.5}, region=MASK),
        )
    ],
    "adain": [({"image": IMAGE, "fusion": "adain", "weight": 0.6}, Styling((ONE,), {STYLE: 0.6}, adain=True))],
    "a fading curve": [({"image": IMAGE, "curve": "fade_out"}, Styling((ONE,), {STYLE: 1.0}, factors=FADING))],
    "all of it, beside another half": [
        (
            {**REGION, "fusion": "adain", "curve": "fade_out", "weight": 0.8},
            Styling((ONE,), {STYLE: 0.8}, region=MASK, adain=True, factors=FADING),
        ),
        (
            {"image": OTHER, "preset": "style_and_layout", "weight": 0.7, "mask": as_base64(LEFT)},
            Styling((TWO,), {STYLE: 0.7, LAYOUT: 0.7}, region=HALF),
        ),
    ],
}
GUIDED = {"attention_guidance": 2, "negative_image": OTHER}
CASES["guided away from a picture"] = [
    ({"image": IMAGE, **GUIDED}, Styling((ONE,), {STYLE: 1.0}, negative=TWO, guidance=2.0))
]
CASES["guided, in a region, by adain, fading"] = [
    (
        {**REGION, **GUIDED, "fusion": "adain", "curve": "fade_out"},
        Styling((ONE,), {STYLE: 1.0}, negative=TWO, region=MASK, adain=True, factors=FADING, guidance=2.0),
    )
]
JOBS = {
    "wide": WIDE,
    "a batch with hires": {**HIRES, "batch_size": 2, "hr_second_pass_steps": 2, "width": 136, "height": 128},
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("case", CASES)
def test_the_controls_are_the_formula(by_the_book, case, job):
    fields = JOBS[job]
    rows = {"rows": ["ccuu"]} if "batch_size" in fields else {}
    by_the_book.assert_equal(CASES[case], **rows, **fields, steps=4)
