"""Fusion, curves, scaling of keys and layers turned round, alone and together, against the formulas written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.style import sums
from lib_instantstyle.style.key_values import ImageKeyValue
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.curves import Curve
from lib_instantstyle.units.errors import UnitError
from lib_instantstyle.units.routing import LAYOUT_BLOCK, STYLE_BLOCK

from ..jobs import unit as request
from ..tiny import TinyHost
from .styled import CLOSE, ROWS, attached, attend, inputs, unit

HALFWAY = 0.5


def term(one: ImageKeyValue, hidden: Tensor, query: Tensor, heads: int, rows: list[int]) -> Tensor:
    """What one unit adds halfway through sampling, by its formula."""
    weight = one.scale * {"fade_in": 0.5, "ease_in": 0.25}.get(one.curve.name, 1.0)
    if one.fusion == "adain":
        style = attend(query, one.key[rows], one.value[rows], heads)
        centred = (hidden - hidden.mean(1, keepdim=True)) / (hidden.std(1, keepdim=True) + 1e-5)
        return weight * (centred * style.std(1, keepdim=True) + style.mean(1, keepdim=True) - hidden)
    key = one.key * weight if one.scaling == "kv" else one.key
    return attend(query, key[rows], weight * one.value[rows], heads)


def written_out(attn2: Any, x: Tensor, context: Tensor, units: list[ImageKeyValue], rows: list[int]) -> Tensor:
    query = attn2.to_q(x)
    hidden = attend(query, attn2.to_k(context), attn2.to_v(context), attn2.heads)
    total = hidden + sum(term(one, hidden, query, attn2.heads, rows) for one in units)
    return attn2.to_out[0](total)  # type: ignore[no-any-return]


ADAIN = replace(unit(scale=0.6), fusion="adain")
FADING = replace(unit(scale=0.8, seed=1), curve=Curve("fade_in"))
BOTH = replace(unit(scale=1.2, seed=2), fusion="adain", curve=Curve("ease_in"))
KEYS = replace(unit(scale=1.5, seed=3, tokens=16), scaling="kv")
PUSHING = unit(seed=4).pushing(0.3)
CASES = [[ADAIN], [FADING], [BOTH], [KEYS], [PUSHING], [unit(), ADAIN], [BOTH, FADING, PUSHING, KEYS], [KEYS, BOTH]]


@pytest.mark.parametrize("units", CASES, ids=lambda units: str(len(units)))
@torch.no_grad()
def test_a_layer_equals_the_formulas(attn2: nn.Module, units: list[ImageKeyValue]) -> None:
    x, context = inputs(2)
    with attached(attn2, *units, rows=ROWS) as call:
        call.progress = HALFWAY
        styled = attn2(x, context)
    torch.testing.assert_close(styled, written_out(attn2, x, context, units, [0, 1]), **CLOSE)


@torch.no_grad()
def test_the_order_of_units_does_not_matter(attn2: nn.Module) -> None:
    x, context = inputs(2)
    found = []
    for units in ([BOTH, FADING, PUSHING], [PUSHING, BOTH, FADING]):
        with attached(attn2, *units, rows=ROWS) as call:
            call.progress = HALFWAY
            found.append(attn2(x, context))
    torch.testing.assert_close(*found, **CLOSE)


@torch.no_grad()
def test_a_factor_of_zero_changes_no_bit(attn2: nn.Module) -> None:
    x, context = inputs(2)
    plain = attn2(x, context)
    with attached(attn2, FADING, rows=ROWS) as call:
        call.progress = 0.0
        assert torch.equal(attn2(x, context), plain)
        call.progress = 1.0
        assert not torch.equal(attn2(x, context), plain)


@torch.no_grad()
def test_a_curve_lays_keys_and_values_out_only_once(attn2: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    laid: list[Any] = []
    stack = sums.stack
    monkeypatch.setattr(sums, "stack", lambda *given: laid.append(given) or stack(*given))
    x, context = inputs(2)
    with attached(attn2, FADING, unit(), BOTH, rows=ROWS) as call:
        for step in range(1, 20):
            call.progress = step / 20
            attn2(x, context)
    assert len(laid) == 2  # what is added, and what is fused


def attached_units(session: StyleSession, host: TinyHost, **fields: Any) -> dict[str, dict[int, ImageKeyValue]]:
    """Block → depth → what a unit comes to there."""
    session.attach(session.plan([request(**fields)]))
    layers = {module: layer for layer, module in attention_layers(host.unet()).items()}
    found: dict[str, dict[int, ImageKeyValue]] = {}
    for one in session._layers:
        layer = layers[one.attn2]
        found.setdefault(layer.block, {})[layer.depth] = one.units[0]
    return found


def test_precise_style_pushes_in_the_layout_block(session: StyleSession, host: TinyHost) -> None:
    plain = attached_units(session, host, preset="style_and_layout", weight=0.9)
    found = attached_units(session, host, preset="style_precise", weight=0.9, push_weight=0.4)
    assert set(found) == {STYLE_BLOCK, LAYOUT_BLOCK}
    for depth, one in found[STYLE_BLOCK].items():
        assert one.scale == 0.9
        assert torch.equal(one.value, plain[STYLE_BLOCK][depth].value)
    for depth, one in found[LAYOUT_BLOCK].items():
        expected = plain[LAYOUT_BLOCK][depth]
        assert one.scale == 0.4
        assert torch.equal(one.key, expected.key[[1, 1]])
        assert torch.equal(one.value[0], expected.value[1])
        assert one.value[1].eq(0).all()


def test_precise_layout_pushes_everywhere_else(session: StyleSession, host: TinyHost) -> None:
    found = attached_units(session, host, preset="layout_precise", weight=0.8)
    scales = {block: one[0].scale for block, one in found.items()}
    assert len(scales) == 11
    assert (scales.pop(LAYOUT_BLOCK), scales.pop(STYLE_BLOCK)) == (0.8, 0.3)
    assert set(scales.values()) == {0.3 * 0.1}


def test_strong_style_acts_everywhere_but_in_the_layout_block(session: StyleSession, host: TinyHost) -> None:
    found = attached_units(session, host, preset="strong_style")
    assert len(found) == 10
    assert LAYOUT_BLOCK not in found


@pytest.mark.parametrize("preset", ["style_precise", "layout_precise", "strong_style"])
def test_weight_zero_turns_every_preset_off(session: StyleSession, preset: str) -> None:
    session.attach(session.plan([request(preset=preset, weight=0.0)]))
    assert session.attached_to is None


def test_the_layout_block_has_a_curve_of_its_own(session: StyleSession, host: TinyHost) -> None:
    found = attached_units(session, host, preset="style_and_layout", curve="fade_in", layout_curve=((0.0, 0.5),))
    assert found[STYLE_BLOCK][0].factor(0.25) == 0.25
    assert found[LAYOUT_BLOCK][0].factor(0.25) == 0.5


def test_a_push_weight_is_refused_where_nothing_pushes() -> None:
    with pytest.raises(UnitError) as refused:
        request(preset="style", push_weight=1.0).check()
    assert refused.value.field == "push_weight"
