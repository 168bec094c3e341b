"""The matrix: ways to write a prompt, ways to guide by it, and the batches that the WebUI makes of both."""

from __future__ import annotations

import pytest
from live_case import Case

pytestmark = pytest.mark.matrix("prompts and guidance")

LONG = ", ".join(["a very long list of words"] * 15)  # more than the 75 tokens that make a chunk
AND = "a cat AND a dog"
APART = {"batch_cond_uncond": False}
NO_NEGATIVE = {"s_min_uncond": 20}


def prompt(text, *rows, **settings):
    return Case({"prompt": text, "steps": 4, **settings}, rows=rows or ("cu",), matters=True)


CASES = {
    "emphasis": prompt("a (cat:1.4) in [the] rain"),
    "edited: [cat:dog:0.5]": prompt("a [cat:dog:0.5]"),
    "alternating: [cat|dog]": prompt("a [cat|dog]"),
    "edited, from one chunk to two": prompt(f"a [cat:{LONG}:0.5]", "c u"),
    "BREAK": prompt("a cat BREAK on a roof", "c u"),
    "BREAK in both": prompt("a cat BREAK a roof", negative_prompt="a dog BREAK a house"),
    "AND": prompt(AND, "ccu"),
    "AND, weighted": prompt("a cat :0.7 AND a dog :-0.3", "ccu"),
    "AND, batch 2": prompt(AND, "ccccuu", batch_size=2),
    "negative longer than the prompt": prompt("a cat", "c u", negative_prompt=LONG),
    "prompt longer than the negative": prompt(LONG, "c u"),
    "no negative prompt, guidance 1": prompt("a cat", cfg_scale=1),
    "CLIP skip": prompt("a cat", options={"CLIP_stop_at_last_layers": 3, "sdxl_clip_l_skip": True}),
    "cond and uncond apart": prompt("a dog", "c u", options=APART),
    "cond and uncond apart, batch 2": prompt("a dog", "cc uu", options=APART, batch_size=2),
    "padded": prompt(LONG, options={"pad_cond_uncond": True}),
    "padded, the old way": prompt(LONG, options={"pad_cond_uncond_v0": True}),
    "NGMS": prompt("a cat", "cu", "c", "cu", "c", **NO_NEGATIVE),
    "NGMS in all steps": prompt("a cat", "c", **NO_NEGATIVE, options={"s_min_uncond_all": True}),
    "early steps without negative": prompt("a cat", "c", "cu", "cu", "cu", options={"skip_early_cond": 0.2}),
    "no emphasis": prompt("a (cat:1.4)", options={"emphasis": "None"}),
}


@pytest.mark.parametrize("name", CASES)
def test_case(examine, name):
    examine(CASES[name])
