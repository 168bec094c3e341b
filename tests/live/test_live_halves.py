"""Every cross-attention is called for halves of its rows, as some extensions do: no picture may change by a bit.

What does not add up ends the job, and the next one knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from live_case import UNIT, Case
from test_live_passes import HIRES
from test_matrix_prompts import LONG, NO_NEGATIVE
from torch import Tensor

pytestmark = pytest.mark.matrix("rows in parts")


def halves(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, context: Tensor, **given: Any) -> Tensor:
        parts = zip(x.chunk(2), context.chunk(2))
        return torch.cat([own(part, context=of_part, **given) for part, of_part in parts])

    return forward


def the_second_half_first(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, context: Tensor, **given: Any) -> Tensor:
        parts = [
            own(part, context=of_part, **given) for part, of_part in reversed([*zip(x.chunk(2), context.chunk(2))])
        ]
        return torch.cat(parts[::-1])

    return forward


def a_half_too_many(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, context: Tensor, **given: Any) -> Tensor:
        own(x[:1].clone(), context=context[:1], **given)
        return halves(own)(x.clone(), context, **given)

    return forward


def half_without_style(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, context: Tensor, **given: Any) -> Tensor:
        return own(x[:1], context=context[:1], **given).expand_as(x)

    return forward


@contextmanager
def every_attn2(computed: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]) -> Iterator[None]:
    from modules import shared

    with ExitStack() as stack:
        for name, module in shared.sd_model.model.diffusion_model.named_modules():
            if name.endswith("attn2"):
                stack.enter_context(mock.patch.object(module, "forward", computed(module.forward)))
        yield


CASES = {
    "one picture": Case(),
    "batch": Case({"batch_size": 2}, rows=("ccuu",)),
    "a long negative": Case({"negative_prompt": LONG}, rows=("c u",)),
    "a long prompt, batch": Case({"prompt": LONG, "batch_size": 2}, rows=("cc uu",)),
    "padded": Case({"negative_prompt": LONG, "options": {"pad_cond_uncond": True}}),
    "NGMS": Case({"steps": 4, **NO_NEGATIVE}, rows=("cu", "c", "cu", "c")),
    "early steps without negative": Case(
        {"steps": 4, "options": {"skip_early_cond": 0.2}}, rows=("c", "cu", "cu", "cu")
    ),
    "hires fix with another prompt": Case({**HIRES, "hr_prompt": LONG}, rows=(("cu",), ("c u",))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("computed", [halves, the_second_half_first])
def test_equals_the_formula(examine, name, computed):
    case = CASES[name]
    examine(Case(case.settings, case.rows, inside=lambda: every_attn2(computed), first_term_is_kept=True))


@pytest.mark.parametrize("settings", [{}, {"batch_size": 2}, HIRES], ids=["one", "batch", "hires"])
def test_no_bit_changes(webui, settings):
    plain, styled = webui.txt2img(**settings), webui.txt2img(UNIT, **settings)
    with every_attn2(halves):
        assert webui.txt2img(**settings).same_as(plain)
        assert webui.txt2img(UNIT, **settings).same_as(styled)


WRONG = {
    "a half too many": (a_half_too_many, "it is not clear for which"),
    "half without style": (half_without_style, "1 of the 2 rows it was given went through"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 4, **NO_NEGATIVE},
        {**HIRES, "prompt": LONG, "hr_prompt": "a cat"},
    ],  # two rows a call in the hires pass only
    ids=["", "NGMS", "hires"],
)
def test_what_does_not_add_up_ends_the_job_and_is_forgotten(webui, by_the_book, name, settings):
    computed, told = WRONG[name]
    plain = by_the_book.plain("txt2img", settings)
    with every_attn2(computed):
        job = webui.txt2img(UNIT, **settings)
    assert job.status == 500
    assert job.answer["detail"]["error"] == "StyleNotAppliedError"
    assert told in job.answer["detail"]["message"]
    assert "test_live_halves" in job.answer["detail"]["message"]
    assert webui.txt2img(**settings).same_as(plain)
