"""Fusions and regions against the formulas written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lib_instantstyle.style.fusions import adain_change, grid_of, on_grid, term


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
