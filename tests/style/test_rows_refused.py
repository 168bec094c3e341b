"""Whatever keeps the style from a row that is due ends the job in that very call, and says what did it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.units.errors import InstantStyleError, StyleNotAppliedError
from lib_instantstyle.units.schedule import Window

from .styled import attached, attend, inputs, unit

ROWS = (True, True, False)
Forward = Callable[[nn.Module, Callable[..., Tensor], Tensor, Tensor], Tensor]


@contextmanager
def computed_by(attn2: nn.Module, compute: Forward) -> Iterator[None]:
    own: Callable[..., Tensor] = attn2.forward

    def forward(x: Tensor, context: Tensor) -> Tensor:
        return compute(attn2, own, x, context)

    attn2.forward = forward
    try:
        yield
    finally:
        del attn2.forward


def attention_of(attn2: nn.Module, x: Tensor, context: Tensor, query: Tensor) -> Tensor:
    return attend(query, attn2.to_k(context), attn2.to_v(context))


def without_to_q(attn2: nn.Module, own: Callable[..., Tensor], x: Tensor, context: Tensor) -> Tensor:
    return attn2.to_out[0](attention_of(attn2, x, context, x @ attn2.to_q.weight.T))


def without_to_out(attn2: nn.Module, own: Callable[..., Tensor], x: Tensor, context: Tensor) -> Tensor:
    return attention_of(attn2, x, context, attn2.to_q(x)) @ attn2.to_out[0].weight.T


def two_outputs_for_one_query(attn2: nn.Module, own: Callable[..., Tensor], x: Tensor, context: Tensor) -> Tensor:
    hidden = attention_of(attn2, x, context, attn2.to_q(x))
    return attn2.to_out[0](hidden) + attn2.to_out[0](hidden)


def two_queries_for_one_output(attn2: nn.Module, own: Callable[..., Tensor], x: Tensor, context: Tensor) -> Tensor:
    query = torch.cat([attn2.to_q(x[:1]), attn2.to_q(x[1:])])
    return attn2.to_out[0](attention_of(attn2, x, context, query))


def kept_from_before(attn2: nn.Module, own: Callable[..., Tensor], x: Tensor, context: Tensor) -> Tensor:
    return torch.zeros_like(x)


def calls(*parts: Callable[[Tensor], Tensor]) -> Forward:
    def compute(attn2: nn.Module, own: Callable[..., Tensor], x: Tensor, context: Tensor) -> Tensor:
        for part in parts:
            own(part(x), part(context))
        return x

    return compute


WRONG: dict[str, tuple[Forward, str]] = {
    "a row left out": (calls(lambda x: x[:2]), "2 of the 3 rows it was given went through its to_q and to_out"),
    "the first row left out": (calls(lambda x: x[1:]), "2 of the 3 rows"),
    "copies of too many rows": (calls(*[lambda x: x[:2].clone()] * 2), "called for 2 of the 3 rows it was given, and"),
    "a copy of a row again": (calls(lambda x: x.clone(), lambda x: x[:1].clone()), "it is not clear for which"),
    "a view, then a copy of one before": (calls(lambda x: x[1:], lambda x: x[:1].clone()), "it is not clear for which"),
    "more rows": (calls(lambda x: torch.cat([x, x])), "called for 6 of the 3 rows"),
    "no to_q": (without_to_q, "its to_q gave nothing, and its to_out got"),
    "no to_out": (without_to_out, "0 of the 3 rows"),
    "neither": (kept_from_before, "0 of the 3 rows"),
    "a query for two outputs": (two_outputs_for_one_query, "its to_q gave nothing"),
    "queries for one output": (two_queries_for_one_output, r"to_q gave \(2, 9, 16\), and its to_out got \(3, 9, 16\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_add_up_ends_the_job_and_names_the_cause(attn2: nn.Module, name: str) -> None:
    compute, told = WRONG[name]
    x, context = inputs(3)
    with attached(attn2, unit(), rows=ROWS) as call:
        with computed_by(attn2, compute), pytest.raises(StyleNotAppliedError, match=told) as caught:
            attn2(x, context)
        with pytest.raises(StyleNotAppliedError, match=told):
            call.end()
    if "processor" not in vars(attn2):
        assert f"computed by {__name__}." in str(caught.value)


def begin(call: ModelCall) -> None:
    call.begin(ROWS, 3)


def begin_another(call: ModelCall) -> None:
    call.begin(None, 3)


@pytest.mark.parametrize("following", [begin, begin_another, ModelCall.end], ids=["next", "another's", "end"])
def test_rows_left_over_are_found_when_the_next_call_begins_or_the_pass_ends(
    attn2: nn.Module, following: Callable[[ModelCall], None]
) -> None:
    x, context = inputs(3)
    with attached(attn2, unit(), rows=ROWS) as call:
        attn2(x[:2], context[:2])
        with pytest.raises(StyleNotAppliedError, match="called for only 2 of 3 rows"):
            following(call)


def test_rows_left_over_are_not_forgotten_when_the_hooks_move_to_another_unet(attn2: nn.Module) -> None:
    x, context = inputs(3)
    with attached(attn2, unit(), rows=ROWS) as call:
        attn2(x[:2], context[:2])
        call.idle()
        with pytest.raises(StyleNotAppliedError, match="called for only 2 of 3 rows"):
            begin(call)


@pytest.mark.parametrize(
    ("given", "told"),
    [((1, 1, 1, 1), "for 1 rows after 3; the model call has 3"), ((2, 2), "for 2 rows after 2"), ((4,), "4 rows; ")],
)
def test_a_part_too_many_ends_the_job_when_it_comes(attn2: nn.Module, given: Sequence[int], told: str) -> None:
    with attached(attn2, unit(), rows=ROWS):
        for rows in given[:-1]:
            attn2(*inputs(rows))
        with pytest.raises(StyleNotAppliedError, match=told):
            attn2(*inputs(given[-1]))


@pytest.mark.parametrize(("marks", "batch"), [((True, False), 3), ((True, False, False), 2), ((), 2)])
def test_marks_that_do_not_divide_the_batch_end_the_job(marks: Sequence[bool], batch: int) -> None:
    call = ModelCall()
    with pytest.raises(StyleNotAppliedError, match=f"had {batch} rows, but marks for {len(marks)}"):
        call.begin(marks, batch)
    assert call.cond_rows is None


def test_an_error_that_somebody_swallows_comes_again_and_in_the_end(attn2: nn.Module) -> None:
    x, context = inputs(4)
    plain = attn2(x, context)
    with attached(attn2, unit(), rows=ROWS) as call:
        with pytest.raises(StyleNotAppliedError, match="4 rows"):
            attn2(x, context)
        assert torch.equal(attn2(x, context), plain)
        for again in (begin, ModelCall.end, begin):
            with pytest.raises(StyleNotAppliedError, match="4 rows"):
                again(call)
        call.start()
        call.begin(ROWS, 3)
        attn2(*inputs(3))
        call.end()


def test_inside_a_call_the_host_gets_its_own_kind_of_error(attn2: nn.Module) -> None:
    class Refused(Exception):
        def __init__(self, error: InstantStyleError) -> None:
            super().__init__(error.message)

    call = ModelCall(as_raised=Refused)
    with pytest.raises(Refused, match="but marks for 2"):
        call.begin((True, False), 3)
    with pytest.raises(Refused, match="but marks for 2"):
        call.begin((True, False), 2)
    with pytest.raises(StyleNotAppliedError, match="but marks for 2"):
        call.end()
    call.start()
    call.begin((True, False), 2)
    layer = StyledLayer(attn2, (unit(),), call)
    layer.attach()
    with pytest.raises(Refused, match="called for 3 rows"):
        attn2(*inputs(3))


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_a_pass_of_due_calls_without_any_style_is_an_error_in_the_end(progress: float) -> None:
    call = ModelCall(progress=progress, is_due=Window(0.5, 1).contains)
    call.start()
    call.begin((True, False), 2)
    call.begin(None, 2)
    if progress:
        with pytest.raises(StyleNotAppliedError, match="in any of 1 model calls"):
            call.end()
    else:
        call.end()


def test_a_call_that_broke_off_says_nothing_of_the_next(attn2: nn.Module) -> None:
    x, context = inputs(3)
    with attached(attn2, unit(), rows=ROWS) as call:
        with pytest.raises(RuntimeError):
            attn2(x, context[..., :-1])
        call.begin(ROWS, 3)
        attn2(x, context)
        call.end()
