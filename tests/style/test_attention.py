"""Decoupled cross attention: what the hooks add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.style.attention import KEPT_STACKS
from lib_instantstyle.style.key_values import FEW_TOKENS, ImageKeyValue, KeyValueStack, stack
from lib_instantstyle.units.schedule import Window

from .styled import CLOSE, HEADS, ROWS, SEQUENCE, WIDTH, attached, attend, formula, inputs, unit


@pytest.mark.parametrize(
    "units",
    [
        [unit(4)],
        [unit(16)],
        [unit(1)],
        [unit(4, seed=1), unit(4, 1.3, seed=2)],
        [unit(4, seed=1), unit(16, 0.4, seed=2), unit(3, -0.5, seed=3)],
        [unit(FEW_TOKENS)],
        [unit(FEW_TOKENS + 1)],
        [unit(257, seed=1), unit(4, 1.3, seed=2), unit(257, -0.5, seed=3)],
    ],
    ids=[
        *("one", "sixteen tokens", "one token", "two of equal length", "three of unequal length"),
        *("the most that are few", "the fewest that are many", "many tokens and few"),
    ],
)
def test_output_equals_the_written_formula(attn2: nn.Module, units: list[ImageKeyValue]) -> None:
    x, context = inputs(2)
    with attached(attn2, *units) as call:
        styled = attn2(x, context)
    torch.testing.assert_close(styled, formula(attn2, x, context, units, [0, 1]), **CLOSE)
    assert (styled - attn2(x, context)).abs().max() > 0.1
    assert call.styled == 1


@pytest.mark.parametrize("rows", [(True, False), (False, False, True, True), (True,), (False, True, True), (False,)])
def test_every_row_gets_the_tokens_its_mark_says(attn2: nn.Module, rows: tuple[bool, ...]) -> None:
    x, context = inputs(len(rows))
    with attached(attn2, unit(), rows=rows):
        styled = attn2(x, context)
    torch.testing.assert_close(styled, formula(attn2, x, context, [unit()], [int(mark) for mark in rows]), **CLOSE)


def test_marks_repeat_over_a_tiled_batch(attn2: nn.Module) -> None:
    x, context = inputs(6)
    with attached(attn2, unit()) as call:
        call.begin((False, True), 6)
        styled = attn2(x, context)
    torch.testing.assert_close(styled, formula(attn2, x, context, [unit()], [0, 1, 0, 1, 0, 1]), **CLOSE)


def test_permuting_the_rows_permutes_the_output(attn2: nn.Module) -> None:
    x, context = inputs(4)
    marks, order = (False, True, True, False), [2, 0, 3, 1]
    with attached(attn2, unit(), rows=marks):
        plain = attn2(x, context)
    with attached(attn2, unit(), rows=[marks[row] for row in order]):
        permuted = attn2(x[order], context[order])
    torch.testing.assert_close(permuted, plain[order], **CLOSE)


def test_nothing_is_added_to_a_call_without_marks(attn2: nn.Module) -> None:
    x, context = inputs(3)
    plain = attn2(x, context)
    with attached(attn2, unit(), rows=None) as call:
        assert torch.equal(attn2(x, context), plain)
        assert call.styled == 0


def test_nothing_is_added_outside_the_window(attn2: nn.Module) -> None:
    x, context = inputs(2)
    plain = attn2(x, context)
    with attached(attn2, unit(window=Window(0.25, 0.5))) as call:
        for progress, acts in ((0.0, False), (0.25, True), (0.49, True), (0.5, False), (1.0, False)):
            call.progress = progress
            assert torch.equal(attn2(x, context), plain) != acts
    assert call.styled == 2


def test_units_with_windows_of_their_own_come_and_go(attn2: nn.Module) -> None:
    early, late = unit(4, window=Window(0, 0.5), seed=1), unit(6, window=Window(0.5, 1), seed=2)
    x, context = inputs(2)
    with attached(attn2, early, late) as call:
        for progress, acting in ((0.0, early), (0.5, late), (0.1, early)):
            call.progress = progress
            torch.testing.assert_close(attn2(x, context), formula(attn2, x, context, [acting], [0, 1]), **CLOSE)


def test_what_is_added_is_linear_in_the_scale(attn2: nn.Module) -> None:
    x, context = inputs(2)
    plain = attn2(x, context)

    def added(scale: float) -> Tensor:
        with attached(attn2, unit(scale=scale)):
            return attn2(x, context) - plain

    torch.testing.assert_close(added(2.0), 2 * added(1.0), **CLOSE)
    torch.testing.assert_close(added(-0.5), -0.5 * added(1.0), **CLOSE)


def test_two_equal_units_add_twice_as_much_as_one(attn2: nn.Module) -> None:
    x, context = inputs(2)
    with attached(attn2, unit(scale=1.4)):
        double = attn2(x, context)
    with attached(attn2, unit(), unit()):
        torch.testing.assert_close(attn2(x, context), double, **CLOSE)


def test_more_row_patterns_than_are_kept_stay_right(attn2: nn.Module) -> None:
    with attached(attn2, unit()) as call:
        for number in (*range(2 * KEPT_STACKS), 0, 1):
            marks = [number >> bit & 1 for bit in range(5)]
            call.begin([bool(mark) for mark in marks], len(marks))
            x, context = inputs(5)
            torch.testing.assert_close(attn2(x, context), formula(attn2, x, context, [unit()], marks), **CLOSE)


def can_multiply(dtype: torch.dtype) -> bool:
    try:
        torch.ones(1, 1, 1, dtype=dtype) @ torch.ones(1, 1, 1, dtype=dtype)
    except RuntimeError:
        return False
    return True


SOME = {"one": [unit(4)], "several": [unit(4, seed=1), unit(5, seed=2)], "many tokens": [unit(99, seed=1), unit(4)]}


@pytest.mark.parametrize("units", SOME.values(), ids=SOME)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_stays_half_and_near(
    attn2: nn.Module, dtype: torch.dtype, tolerance: float, units: list[ImageKeyValue]
) -> None:
    if not can_multiply(dtype):
        pytest.skip(f"torch {torch.__version__} has no {dtype} product on the CPU")
    x, context = inputs(2)
    exact = formula(attn2, x, context, units, [0, 1])
    with attached(attn2.to(dtype), *units):
        styled = attn2(x.to(dtype), context.to(dtype))
    assert styled.dtype == dtype
    torch.testing.assert_close(styled.float(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("units", SOME.values(), ids=SOME)
def test_logits_that_float16_cannot_hold_do_no_harm(units: list[ImageKeyValue]) -> None:
    if not can_multiply(torch.float16):
        pytest.skip(f"torch {torch.__version__} has no float16 product on the CPU")
    large = [replace(one, key=(1000 * one.key).half().float()) for one in units]
    query = 40 * torch.randn(2, SEQUENCE, WIDTH, generator=torch.Generator().manual_seed(0)).half()
    assert (query[0] @ large[0].key[0].half().T).isinf().any()
    nothing = torch.zeros(2, SEQUENCE, WIDTH)
    exact, near = (stack(large, ROWS, HEADS, x).add_to(x, query.to(x)) for x in (nothing, nothing.half()))
    torch.testing.assert_close(near.float(), exact, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("units", SOME.values(), ids=SOME)
def test_what_is_float32_is_styled_inside_autocast_too(attn2: nn.Module, units: list[ImageKeyValue]) -> None:
    x, context = inputs(2)
    exact = formula(attn2, x, context, units, [0, 1])
    with attached(attn2, *units), torch.autocast("cpu", dtype=torch.bfloat16):
        query = attn2.to_q(x)
        styled = attn2.to_out[0](attend(query, attn2.to_k(context), attn2.to_v(context)).float())
    torch.testing.assert_close(styled.float(), exact, rtol=4e-2, atol=4e-2)


def test_devices_that_may_lose_what_is_written_through_a_view_get_no_such_product() -> None:
    """A job would pass for styled and be plain."""
    like = torch.zeros(2, SEQUENCE, WIDTH, device="meta")
    with mock.patch.object(KeyValueStack, "_by_products", side_effect=AssertionError):
        assert stack([unit(4)], ROWS, HEADS, like).add_to(like, like).shape == like.shape


@pytest.mark.parametrize("units", SOME.values(), ids=SOME)
def test_gradients_are_those_of_the_written_formula(attn2: nn.Module, units: list[ImageKeyValue]) -> None:
    def gradients(run: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
        given = [x.requires_grad_() for x in inputs(2)]
        return torch.autograd.grad(run(*given).square().sum(), given)

    with attached(attn2, *units):
        found = gradients(attn2)
    exact = gradients(lambda x, context: formula(attn2, x, context, units, [0, 1]))
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_style_takes_the_dtype_of_what_it_is_added_to(attn2: nn.Module) -> None:
    x, context = inputs(2)
    exact = formula(attn2, x, context, [unit()], [0, 1])
    attn2.to_out.double()
    with attached(attn2, unit()):
        query = attn2.to_q(x)
        styled = attn2.to_out[0](attend(query, attn2.to_k(context), attn2.to_v(context)).double())
    assert styled.dtype == torch.float64
    torch.testing.assert_close(styled.float(), exact, **CLOSE)
