"""A layer that is called for parts of the rows is styled as one that gets them all at once, or the job ends there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.rows import rows_shown
from lib_instantstyle.units.schedule import Window

from .styled import CLOSE, attached, attend, formula, inputs, unit

MARKS = (True, True, False, False)  # as A1111 lays out two pictures
UNITS = (unit(4, seed=1), unit(6, 0.4, seed=2))
Cuts = Sequence[Any]


@contextmanager
def in_parts(attn2: nn.Module, cuts: Cuts, copied: bool = False) -> Iterator[None]:
    """While it lasts, `attn2.forward` is several calls of itself, as under NegPiP."""
    own: Callable[..., Tensor] = attn2.forward

    def forward(x: Tensor, context: Tensor, **_: Any) -> Tensor:
        out = torch.zeros_like(x)
        for cut in cuts:
            out[cut] = own(x[cut].clone() if copied else x[cut], context[cut])
        return out

    attn2.forward = forward
    try:
        yield
    finally:
        del attn2.forward


IN_ORDER = {
    "halves": [slice(0, 2), slice(2, 4)],
    "unequal": [slice(0, 1), slice(1, 4)],
    "three": [slice(0, 1), slice(1, 2), slice(2, 4)],
    "row by row": [slice(row, row + 1) for row in range(4)],
    "all and none": [slice(0, 4), slice(4, 4)],
    "all at once, twice": [slice(0, 4), slice(0, 4)],
}
IN_ANY_ORDER = {
    **IN_ORDER,
    "the other half first": [slice(2, 4), slice(0, 2)],
    "a half again for each region": [slice(0, 2), slice(0, 2), slice(0, 2), slice(2, 4)],
    "every other row": [slice(0, 4, 2), slice(1, 4, 2)],
    "overlapping": [slice(0, 3), slice(1, 4)],
}
PARTS = [
    *(pytest.param(cuts, False, id=name) for name, cuts in IN_ANY_ORDER.items()),
    *(pytest.param(cuts, True, id=f"{name}, copied") for name, cuts in IN_ORDER.items()),
]


@pytest.mark.parametrize(("cuts", "copied"), PARTS)
def test_parts_are_styled_as_the_whole_to_the_last_bit(attn2: nn.Module, cuts: Cuts, copied: bool) -> None:
    if hasattr(attn2, "processor") and slice(4, 4) in cuts:
        pytest.skip("diffusers' attention takes no empty batch")
    x, context = inputs(4)
    with attached(attn2, *UNITS, rows=MARKS):
        whole = attn2(x, context)
        with in_parts(attn2, cuts, copied):
            styled = attn2(x, context)
    assert torch.equal(styled, whole)
    torch.testing.assert_close(styled, formula(attn2, x, context, UNITS, [1, 1, 0, 0]), **CLOSE)


def test_conditional_rows_alone_come_in_parts_too(attn2: nn.Module) -> None:
    x, context = inputs(2)
    with attached(attn2, *UNITS, rows=(True, True)), in_parts(attn2, [slice(0, 1), slice(1, 2)]):
        styled = attn2(x, context)
    torch.testing.assert_close(styled, formula(attn2, x, context, UNITS, [1, 1]), **CLOSE)


@pytest.mark.parametrize("module", [True, False], ids=["module", "leaves only"])
def test_parts_that_share_no_call_of_the_layer_follow_one_another(attn2: nn.Module, module: bool) -> None:
    """As where the layer's block is called for parts, or where a host calls to_q and to_out by itself."""
    x, context = inputs(4)
    expected = formula(attn2, x, context, UNITS, [1, 1, 0, 0])
    compute = attn2 if module else by_leaves(attn2)
    with attached(attn2, *UNITS, rows=MARKS) as call:
        for _ in range(2):
            parts = [compute(x[rows], context[rows]) for rows in (slice(0, 3), slice(3, 4))]
            torch.testing.assert_close(torch.cat(parts), expected, **CLOSE)
            call.begin(MARKS, 4)
        call.end()


def by_leaves(attn2: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def compute(x: Tensor, context: Tensor) -> Tensor:
        return attn2.to_out[0](attend(attn2.to_q(x), attn2.to_k(context), attn2.to_v(context)))

    return compute


def test_layers_may_take_their_parts_in_turn(attn2: nn.Module) -> None:
    """As where a whole block of the UNet is called for parts."""
    x, context = inputs(2)
    other = deepcopy(attn2)
    expected = formula(other, formula(attn2, x, context, UNITS, [1, 0]), context, UNITS, [1, 0])
    with attached(attn2, *UNITS, rows=(True, False)) as call:
        layer = StyledLayer(other, UNITS, call)
        layer.attach()
        parts = [other(attn2(x[row], context[row]), context[row]) for row in (slice(0, 1), slice(1, 2))]
        call.end()
    torch.testing.assert_close(torch.cat(parts), expected, **CLOSE)


def test_a_layer_that_is_not_due_may_be_called_in_any_way(attn2: nn.Module) -> None:
    x, context = inputs(3)
    plain = attn2(x, context)
    with attached(attn2, unit(window=Window(0.5, 1)), rows=(True, False)) as call:
        assert torch.equal(attn2(x, context), plain)
        attn2.to_out[0](x)
        call.end()
    with attached(attn2, unit(), rows=None) as call:
        assert torch.equal(attn2(x, context), plain)
        attn2.to_out[0](x)
        call.end()


@pytest.mark.parametrize(
    ("part", "rows"),
    [
        (lambda x: x[:2], range(2)),
        (lambda x: x[3:4], range(3, 4)),
        (lambda x: x[1::2], range(1, 5, 2)),
        (lambda x: x.chunk(2)[1], range(2, 4)),
        (lambda x: x[1], None),
        (lambda x: x[:2].clone(), None),
        (lambda x: x[:2, 1:], None),
        (lambda x: x[:2, :, :-1], None),
        (lambda x: x[:2].transpose(1, 2), None),
        (lambda x: x[:1].expand(2, -1, -1), None),
        (lambda x: x[:0], None),
        (lambda x: x.view(torch.int32)[:2], None),
        (lambda x: x.flatten(0, 1)[3:].unflatten(0, (3, 3))[:2], range(1, 3)),
        (lambda x: x.flatten()[3:-12].unflatten(0, (3, 3, 5))[:2], None),
    ],
)
def test_a_view_tells_which_rows_it_shows(part: Callable[[Tensor], Tensor], rows: range | None) -> None:
    whole = torch.randn(4, 3, 5)
    assert rows_shown(part(whole), whole) == rows
    assert rows_shown(whole[:1], whole[:1].expand(4, -1, -1)) is None
