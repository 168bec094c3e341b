"""Whatever way the WebUI lays out its batches, conditional rows get the picture and the others get none."""

from __future__ import annotations

import pytest
import torch
from live_comparison import TOLERANCE, distance
from live_kind import kind
from live_world import as_base64, picture
from oracle import STYLE, Styling

PICTURE = picture(0)
UNIT = {"image": as_base64(PICTURE)}
STYLING = Styling((PICTURE,), {STYLE: 1.0})

LONG = ", ".join(["a very long list of words"] * 15)  # more than the 75 tokens that make a chunk
AND = "a cat AND a dog"
APART = {"batch_cond_uncond": False}
MATRIX = {"script_name": "prompt matrix", "script_args": [False, False, "positive", "comma", 0]}

# Settings, and the rows of each step's calls that the WebUI makes of them: c conditional, u unconditional.
LAYOUTS = {  # beside those of test_matrix_prompts.py
    "one picture": ({}, ["cu"]),
    "batch": ({"batch_size": 2}, ["ccuu"]),
    "AND, apart": ({"options": APART, "prompt": AND}, ["c c u"]),
    "uneven AND": ({"prompt": "a cat|AND a dog", "batch_size": 2, **MATRIX}, ["cccuu"]),
    "uneven AND, apart": (
        {"prompt": "a cat|AND a dog", "batch_size": 2, "options": APART, **MATRIX},
        ["cc cu u"],
    ),
    "long prompt, batch": ({"prompt": LONG, "batch_size": 2}, ["cc uu"]),
    "long AND": ({"prompt": AND, "negative_prompt": LONG}, ["cc u"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_are_told_apart(by_the_book, name):
    settings, rows = LAYOUTS[name]
    if kind().packages and "script_name" in settings:
        pytest.skip("its scripts have other names")
    by_the_book.assert_equal([(UNIT, STYLING)], rows=rows, **settings)


def test_a_batch_is_its_pictures_one_by_one(webui):
    batch = webui.txt2img(UNIT, batch_size=2, seed=1).passes[0].latents
    singles = torch.cat([webui.txt2img(UNIT, seed=seed).passes[0].latents for seed in (1, 2)])
    assert distance(batch, singles) < TOLERANCE * batch.std()
