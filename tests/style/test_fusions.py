"""Fusions and regions against the formulas written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lib_instantstyle.style.fusions import adain_change, grid_of, guided, on_grid, term


def test_adain_takes_over_mean_and_unbiased_deviation_of_each_row_and_channel() -> None:
    hidden, style = torch.randn(2, 30, 5).double(), (2 + 3 * torch.randn(2, 30, 5)).double()
    found = hidden + adain_change(hidden, style)
    for row in range(2):
        for channel in range(5):
            h, s = hidden[row, :, channel], style[row, :, channel]
            expected = (h - h.mean()) / (h.std() + 1e-5) * s.std() + s.mean()
            torch.testing.assert_close(found[row, :, channel], expected)


def test_a_flat_channel_is_not_divided_by_nothing() -> None:
    assert torch.isfinite(adain_change(torch.ones(1, 9, 2), torch.randn(1, 9, 2))).all()


def test_the_terms_of_both_fusions_are_what_is_added() -> None:
    hidden, style = torch.randn(2, 9, 4), torch.randn(2, 9, 4)
    assert term("add", hidden, style) is style
    assert torch.equal(term("adain", hidden, style), adain_change(hidden, style))


@pytest.mark.parametrize("height", [8, 13, 96, 104, 131])
@pytest.mark.parametrize("width", [8, 17, 96, 152])
def test_grids_are_those_of_strided_convolutions(height: int, width: int) -> None:
    x, halve = torch.zeros(1, 1, height, width), torch.nn.Conv2d(1, 1, 3, 2, 1)
    for _ in range(3):
        assert grid_of(x.shape[2] * x.shape[3], (height, width)) == tuple(x.shape[2:])
        x = halve(x)


def test_positions_that_are_no_grid_of_the_latent_are_noticed() -> None:
    assert grid_of(77, (64, 64)) is None


def test_a_mask_is_averaged_over_the_area_of_each_position() -> None:
    mask = torch.rand(1, 1, 64, 48)
    found = on_grid(mask, (16, 12))
    torch.testing.assert_close(found, functional.avg_pool2d(mask, 4).flatten(1)[..., None])
    assert on_grid(torch.ones(1, 1, 64, 48), (7, 5)).eq(1).all()


@pytest.mark.parametrize(("scale", "length"), [(0.4, 1.0), (3.0, 1.0), (40.0, 1.0), (3.0, 0.0)])
def test_guidance_equals_the_published_arithmetic(scale: float, length: float) -> None:
    """Z̃, its length against Z⁺'s, the limit τ = 2.5 and the blend α = 0.5, position by position."""
    positive, negative = length * torch.randn(2, 9, 4).double(), torch.randn(2, 9, 4).double()
    found = guided(positive, negative, scale)
    for row in range(2):
        for place in range(9):
            p, n = positive[row, place], negative[row, place]
            led = p * (1 + scale) - n * scale
            ratio = led.abs().sum() / p.abs().sum() if length else torch.tensor(float("inf"))
            if ratio > 2.5:
                led = led / led.abs().sum() * p.abs().sum() * 2.5
            torch.testing.assert_close(found[row, place], 0.5 * led + 0.5 * p, rtol=1e-5, atol=1e-6)


def test_guidance_away_from_the_same_changes_no_bit() -> None:
    x = torch.randn(2, 9, 4)
    assert torch.equal(guided(x, x, 5.0), x)


def test_guidance_stays_finite_in_half_precision() -> None:
    big = torch.full((1, 2, 1280), 120.0).half()  # whose sum is not a half
    assert torch.isfinite(guided(big, -big, 10.0)).all()
