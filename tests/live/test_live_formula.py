"""What the extension adds is what the formula says, for every way to ask for it."""

from __future__ import annotations

import pytest
from live_world import as_base64, picture
from oracle import LAYOUT, NUMBERS, STYLE, Styling
from oracle_prompts import Content

ONE, TWO = picture(0), picture(1, (120, 260))
IMAGE, OTHER = as_base64(ONE), as_base64(TWO)
BLOCKS = {"up_blocks.0": 0.5, "output_blocks.1.1": 1.5, "mid_block.attentions.0.transformer_blocks.3": -0.5}
BLOCKS_BY_THE_BOOK = {
    "output_blocks.0.1": 0.4,
    STYLE: 1.2,
    "output_blocks.2.1": 0.4,
    "middle_block.1.transformer_blocks.3": -0.4,
}

BRACKETS = "content with brackets"

# What the API is told, and what that means.
UNITS = {
    "style": ({}, Styling((ONE,), {STYLE: 1.0})),
    "weight": ({"weight": 0.6}, Styling((ONE,), {STYLE: 0.6})),
    "negative weight": ({"weight": -0.7}, Styling((ONE,), {STYLE: -0.7})),
    "layout": ({"preset": "layout"}, Styling((ONE,), {LAYOUT: 1.0})),
    "style and layout": (
        {"preset": "style_and_layout", "weight": 1.2, "layout_weight": 0.3},
        Styling((ONE,), {STYLE: 1.2, LAYOUT: 0.3}),
    ),
    "one weight for both": (
        {"preset": "style_and_layout", "weight": 0.8},
        Styling((ONE,), {STYLE: 0.8, LAYOUT: 0.8}),
    ),
    "original": ({"preset": "original", "weight": 0.5}, Styling((ONE,), dict.fromkeys(NUMBERS, 0.5))),
    "custom": ({"preset": "custom", "weight": 0.8, "blocks": BLOCKS}, Styling((ONE,), BLOCKS_BY_THE_BOOK)),
    "plus": ({"adapter": "tiny-plus"}, Styling((ONE,), {STYLE: 1.0}, "tiny-plus")),
    "two pictures": ({"image": [IMAGE, OTHER]}, Styling((ONE, TWO), {STYLE: 1.0})),
    "two pictures, plus": (
        {"image": [IMAGE, OTHER], "adapter": "tiny-plus"},
        Styling((ONE, TWO), {STYLE: 1.0}, "tiny-plus"),
    ),
    "content subtracted": (
        {"content_prompt": "a red cat", "content_scale": 0.7},
        Styling((ONE,), {STYLE: 1.0}, content=Content("a red cat", 0.7)),
    ),
    BRACKETS: (
        {"content_prompt": "a [cat] (in: the rain)", "content_scale": 1.0},
        Styling((ONE,), {STYLE: 1.0}, content=Content("a [cat] (in: the rain)", 1.0)),
    ),
    "content with an order": (  # BREAK in capitals begins a new chunk of a prompt; here it is a word
        {"content_prompt": "a BREAK dancer", "content_scale": 1.0},
        Styling((ONE,), {STYLE: 1.0}, content=Content("a BREAK dancer", 1.0)),
    ),
    "content projected": (
        {"content_prompt": "a red cat", "content_scale": 1.0, "content_method": "project"},
        Styling((ONE,), {STYLE: 1.0}, content=Content("a red cat", 1.0, "project")),
    ),
}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_changes_the_latents_as_the_formula_says(by_the_book, name):
    unit, styling = UNITS[name]
    by_the_book.assert_equal([({"image": IMAGE, **unit}, styling)])


def test_content_is_taken_literally_where_emphasis_is_off(by_the_book):
    by_the_book.assert_equal(
        [({"image": IMAGE, **UNITS[BRACKETS][0]}, UNITS[BRACKETS][1])], options={"emphasis": "None"}
    )
