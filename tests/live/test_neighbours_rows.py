"""Beside extensions that compute a layer's attention for some rows at a time; test_matrix_conditions.py runs this.

NegPiP asks for a negative weight in the prompt. With the samplers that it names, and so does Regional Prompter, both
compute the second half of a batch first.
"""

from __future__ import annotations

from typing import Any

import pytest
from live_case import Case
from test_live_passes import HIRES
from test_matrix_prompts import LONG, NO_NEGATIVE
from test_neighbours import REGIONAL, regional

pytestmark = [pytest.mark.under_condition, pytest.mark.matrix("rows in parts")]

NEGPIP, RP = "*negpip*", "*regional-prompter*"
AGAINST = "a cat (dog:-1.2)"
COLUMNS = {"prompt": "a cat BREAK a dog", "negative_prompt": LONG}  # two chunks of tokens on both sides
OTHER_FIRST = {"sampler_name": "DDIM"}
PADDED = {"options": {"pad_cond_uncond": True}}
EARLY = {"options": {"skip_early_cond": 0.2}}
NGMS = ("cu", "c", "cu", "c")


def negpip(*rows: Any, prompt: str = AGAINST, **settings: Any) -> Case:
    scripts = {"NegPiP": {"args": [True]}}
    return case({"prompt": prompt, "scripts": scripts, **settings}, rows)


def columns(*rows: Any, **settings: Any) -> Case:
    return case({**COLUMNS, "scripts": {REGIONAL: {"args": regional("Attention")}}, **settings}, rows)


def both(*rows: Any, **settings: Any) -> Case:
    scripts = {REGIONAL: {"args": regional("Attention")}, "NegPiP": {"args": [True]}}
    return case({**COLUMNS, "prompt": "a cat (tail:-1.2) BREAK a dog", "scripts": scripts, **settings}, rows)


def case(settings: dict[str, Any], rows: tuple[Any, ...]) -> Case:
    return Case(settings, rows or ("cu",), first_term_is_kept=True, matters=True)


CASES = {
    "NegPiP": (NEGPIP, negpip()),
    "NegPiP in both prompts": (NEGPIP, negpip(negative_prompt="a house (tree:-0.8)")),
    "NegPiP, batch 2": (NEGPIP, negpip("ccuu", batch_size=2)),
    "NegPiP, a sampler that takes the other half first": (NEGPIP, negpip(**OTHER_FIRST)),
    "NegPiP, NGMS": (NEGPIP, negpip(*NGMS, steps=4, **NO_NEGATIVE)),
    "NegPiP, early steps without negative": (NEGPIP, negpip("c", "cu", "cu", "cu", steps=4, **EARLY)),
    "NegPiP, a long negative": (NEGPIP, negpip("c u", negative_prompt=LONG)),
    "NegPiP, a long negative, padded": (NEGPIP, negpip(negative_prompt=LONG, **PADDED)),
    "NegPiP, hires fix": (NEGPIP, negpip(**HIRES)),
    "NegPiP, hires fix with another prompt": (
        NEGPIP,
        negpip(("cu",), ("c u",), **HIRES, hr_prompt=f"{AGAINST}, {LONG}"),
    ),
    "Regional Prompter": (RP, columns()),
    "Regional Prompter, as many regions": (RP, columns(negative_prompt="a house BREAK a tree")),
    "Regional Prompter, batch 2": (RP, columns("ccuu", batch_size=2)),
    "Regional Prompter, a sampler that takes the other half first": (RP, columns(**OTHER_FIRST)),
    "Regional Prompter, NGMS": (RP, columns(*NGMS, steps=4, **NO_NEGATIVE)),
    "Regional Prompter, a short negative": (RP, columns("c u", negative_prompt="a house")),
    "Regional Prompter, a short negative, padded": (RP, columns(negative_prompt="a house", **PADDED)),
    "Regional Prompter, hires fix": (RP, columns(**HIRES)),
    "Regional Prompter with NegPiP": (RP, both()),
    "Regional Prompter with NegPiP, NGMS": (RP, both(*NGMS, steps=4, **NO_NEGATIVE)),
}


@pytest.mark.parametrize("name", CASES)
def test_case(examine, world, name):
    pattern, found = CASES[name]
    for wanted in {pattern, *([NEGPIP] if "with NegPiP" in name else [])}:
        if not world.has(wanted):
            pytest.skip(f"no extension {wanted} in WEBUI_DIR's extensions or in WEBUI_EXTENSIONS")
    examine(found)
