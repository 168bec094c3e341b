"""Weights on keys and values against ComfyUI_IPAdapter_plus's published arithmetic, and layers turned round."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_instantstyle.style.key_values import ImageKeyValue
from lib_instantstyle.style.kv_scaling import SCALINGS
from lib_instantstyle.units.curves import Curve
from lib_instantstyle.units.schedule import Window


def published(name: str, k: Tensor, v: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """As the four choices of `embeds_scaling` compute it, written out."""
    if name == "v":
        return k, v * weight
    if name == "kv":
        return k * weight, v * weight
    weight = weight * (k.shape[2] / 1280.0)
    if name == "kv_penalty":
        return k * weight, v * weight
    mean = torch.mean(v, dim=1, keepdim=True)
    return k * weight, (v - mean) + mean * weight


@pytest.mark.parametrize("channels", [640, 1280])
@pytest.mark.parametrize("weight", [0.3, 1.0, 1.7, -0.5])
@pytest.mark.parametrize("name", SCALINGS)
def test_scalings_equal_the_published_arithmetic(name: str, weight: float, channels: int) -> None:
    key, value = torch.randn(2, 4, channels), torch.randn(2, 4, channels)
    unit = ImageKeyValue(key, value, weight, Window(), scaling=name)
    for found, expected in zip(unit.scaled(1.0), published(name, key, value, weight)):
        torch.testing.assert_close(found, expected)


def test_a_curve_is_a_factor_on_the_scale_inside_the_window_only() -> None:
    unit = ImageKeyValue(torch.ones(2, 4, 8), torch.ones(2, 4, 8), 2.0, Window(0.25, 0.75), Curve("fade_in"))
    assert [unit.factor(t) for t in (0.0, 0.25, 0.5, 0.75)] == [0.0, 0.25, 0.5, 0.0]
    assert torch.equal(unit.scaled(unit.factor(0.5))[1], torch.ones(2, 4, 8))


def test_turned_round_only_unconditional_rows_see_the_reference() -> None:
    key, value = torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    pushing = ImageKeyValue(key, value, 1.0, Window()).pushing(0.3)
    query = torch.randn(5, 8)
    uncond, cond = ((query @ pushing.key[row].T).softmax(-1) @ pushing.value[row] for row in (0, 1))
    assert cond.eq(0).all()
    torch.testing.assert_close(uncond, (query @ key[1].T).softmax(-1) @ value[1])
    assert pushing.scale == 0.3
