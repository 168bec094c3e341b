"""Decoupled cross attention: the hooks leave no trace and get in nobody's way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.rows import ModelCall

from .styled import CLOSE, ROWS, attached, attend, formula, inputs, unit


def hooks_of(attn2: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in attn2.modules())


def test_detach_restores_the_output_bit_for_bit_twice(attn2: nn.Module) -> None:
    x, context = inputs(2)
    plain = attn2(x, context)
    for _ in range(2):
        with attached(attn2, unit()):
            assert not torch.equal(attn2(x, context), plain)
        assert torch.equal(attn2(x, context), plain)
        assert hooks_of(attn2) == 0


def test_detach_restores_the_output_when_forward_raises(attn2: nn.Module) -> None:
    x, context = inputs(2)
    plain = attn2(x, context)
    with pytest.raises(RuntimeError), attached(attn2, unit()):
        attn2(x, context[..., :-1])  # to_q has run, to_k refuses
    assert torch.equal(attn2(x, context), plain)
    assert hooks_of(attn2) == 0


def test_call_after_one_that_raised_is_styled_as_ever(attn2: nn.Module) -> None:
    x, context = inputs(2)
    with attached(attn2, unit()):
        with pytest.raises(RuntimeError):
            attn2(x, context[..., :-1])
        styled = attn2(x, context)
    torch.testing.assert_close(styled, formula(attn2, x, context, [unit()], [0, 1]), **CLOSE)


def test_detaching_twice_is_harmless(attn2: nn.Module) -> None:
    layer = StyledLayer(attn2, (unit(),), ModelCall(ROWS))
    layer.attach()
    layer.detach()
    layer.detach()
    assert hooks_of(attn2) == 0


def test_hooks_of_others_stay(attn2: nn.Module) -> None:
    seen = []
    attn2.to_q.register_forward_hook(lambda *_: seen.append(1))
    x, context = inputs(2)
    with attached(attn2, unit()):
        attn2(x, context)
    attn2(x, context)
    assert (len(seen), hooks_of(attn2)) == (2, 1)


def test_attention_that_goes_round_the_modules_forward_is_styled_too(attn2: nn.Module) -> None:
    x, context = inputs(2)
    with attached(attn2, unit()):
        out = attend(attn2.to_q(x), attn2.to_k(context), attn2.to_v(context))
        styled = attn2.to_out[0](out)  # as two of the WebUI's optimisations do, without to_out.__call__
    torch.testing.assert_close(styled, formula(attn2, x, context, [unit()], [0, 1]), **CLOSE)


@pytest.mark.parametrize("tokens", [4, 99])
def test_attention_to_the_text_is_not_written_to(attn2: nn.Module, tokens: int) -> None:
    """Others may hold on to it, or have spread one row over several."""
    x, context = inputs(2)
    query = attn2.to_q(x)
    row = attend(query, attn2.to_k(context), attn2.to_v(context))[:1]
    kept = row.clone()
    with attached(attn2, unit(tokens)) as call:
        attn2.to_q(x)
        styled = attn2.to_out[0](row.expand(2, -1, -1))
    added = unit(tokens).scale * attend(query, unit(tokens).key, unit(tokens).value)
    torch.testing.assert_close(styled, attn2.to_out[0](kept + added), **CLOSE)
    assert torch.equal(row, kept)
    assert call.styled == 1
