"""Decoupled cross attention where people run it; not run without a GPU that CUDA knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.key_values import FEW_TOKENS, ImageKeyValue, stack
from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.units.schedule import Window

from ..tiny import cross_attention
from .styled import formula

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WIDTH, CONTEXT, HEADS, SEQUENCE = 128, 96, 2, 100  # heads of 64, as SDXL's
ROWS = (False, True, True)
# dtype → what one sum may be off by
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}


def unit(tokens: int, scale: float = 0.7, seed: int = 0) -> ImageKeyValue:
    made = torch.Generator().manual_seed(seed)
    key, value = (torch.randn(2, tokens, WIDTH, generator=made) for _ in range(2))
    return ImageKeyValue(key, value, scale, Window())


UNITS = {
    "one": [unit(4)],
    "three": [unit(4, seed=seed) for seed in range(3)],
    "of unequal length": [unit(16, seed=1), unit(4, -0.5, seed=2)],
    "the most that are few": [unit(FEW_TOKENS)],
    "many tokens": [unit(257), unit(257, 0.3, seed=1)],
}


@pytest.fixture(params=["ldm", "diffusers"])
def attn2(request: pytest.FixtureRequest) -> nn.Module:
    return cross_attention(request.param, WIDTH, CONTEXT, HEADS).requires_grad_(False)


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """No TF32: float32 is measured as float32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def inputs() -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(7)
    rows = len(ROWS)
    return torch.randn(rows, SEQUENCE, WIDTH, generator=made), torch.randn(rows, 77, CONTEXT, generator=made)


def exact(attn2: nn.Module, units: Sequence[ImageKeyValue]) -> Tensor:
    """The written formula, in float32 on the CPU."""
    return formula(attn2, *inputs(), units, list(map(int, ROWS)))


def layer(attn2: nn.Module, units: Sequence[ImageKeyValue]) -> StyledLayer:
    return StyledLayer(attn2, tuple(units), ModelCall(cond_rows=ROWS))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_output_is_the_written_formula(attn2: nn.Module, units: list[ImageKeyValue], dtype: torch.dtype) -> None:
    wanted, tolerance = exact(attn2, units), TOLERANCES[dtype]
    attn2.to("cuda", dtype)
    x, context = (given.to("cuda", dtype) for given in inputs())
    plain, styled_layer = attn2(x, context), layer(attn2, units)
    styled_layer.attach()
    styled = attn2(x, context)
    styled_layer.detach()
    assert styled.dtype == dtype
    assert (styled - plain).abs().max() > 0.1
    torch.testing.assert_close(styled.float().cpu(), wanted, rtol=tolerance, atol=tolerance)
    assert torch.equal(attn2(x, context), plain)


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_float32_inside_autocast_is_styled_too(attn2: nn.Module, units: list[ImageKeyValue]) -> None:
    wanted = exact(attn2, units)
    attn2.cuda()
    styled_layer = layer(attn2, units)
    styled_layer.attach()
    with torch.autocast("cuda", dtype=torch.float16):
        styled = attn2(*(given.cuda() for given in inputs()))
    styled_layer.detach()
    torch.testing.assert_close(styled.float().cpu(), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_logits_that_float16_cannot_hold_do_no_harm(units: list[ImageKeyValue]) -> None:
    large = [replace(one, key=(4000 * one.key).half().float()) for one in units]
    query = (20 * torch.randn(len(ROWS), SEQUENCE, WIDTH, generator=torch.Generator().manual_seed(0))).half()
    nothing = torch.zeros(len(ROWS), SEQUENCE, WIDTH)
    wanted = stack(large, ROWS, HEADS, nothing).add_to(nothing, query.float())
    like = nothing.half().cuda()
    found = stack(large, ROWS, HEADS, like).add_to(like, query.cuda())
    torch.testing.assert_close(found.float().cpu(), wanted, rtol=1e-2, atol=1e-2)


def test_a_layer_that_moves_between_devices_takes_its_units_along(attn2: nn.Module) -> None:
    """As --lowvram moves them."""
    wanted, styled_layer = exact(attn2, UNITS["three"]), layer(attn2, UNITS["three"])
    styled_layer.attach()
    for device in ("cuda", "cpu", "cuda"):
        attn2.to(device)
        styled = attn2(*(given.to(device) for given in inputs()))
        torch.testing.assert_close(styled.cpu(), wanted, rtol=1e-5, atol=1e-5)
    styled_layer.detach()


def test_nothing_stays_on_the_gpu(attn2: nn.Module) -> None:
    attn2.cuda()
    x, context = (given.cuda() for given in inputs())
    attn2(x, context)  # what libraries allocate for themselves
    before = torch.cuda.memory_allocated()
    styled_layer = layer(attn2, UNITS["many tokens"])
    styled_layer.attach()
    attn2(x, context)
    kept = torch.cuda.memory_allocated() - before
    styled_layer.detach()
    assert kept > 0
    assert torch.cuda.memory_allocated() == before
