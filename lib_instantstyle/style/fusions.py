"""How a unit's attention S joins the attention to the text H: added, or by its statistics; everywhere, or in a region.

    add     H + w · m · S                                    IP-Adapter, arXiv:2308.06721 eq. 5
    adain   H + w · m · (AdaIN(H, S) − H)                    StyleStudio, arXiv:2412.08503 §3.2; w = 1 is the paper's
            AdaIN(H, S) = (H − μ_H) / (σ_H + ε) · σ_S + μ_S

m is the region, 1 where the style acts. Several units: the terms add up, whatever their order.

A unit may also be guided inside the layer, away from what its unconditional rows see: `guided`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-5
TAU = 2.5  # times a position's length may become it by guidance, and
ALPHA = 0.5  # guidance's share of the result: both as the authors use them for SDXL


def term(fusion: str, hidden: Tensor, style: Tensor) -> Tensor:
    """What a unit at weight 1 adds to `hidden`; all (rows, positions, channels)."""
    return style if fusion == "add" else adain_change(hidden, style)


def adain_change(hidden: Tensor, style: Tensor) -> Tensor:
    """AdaIN(H, S) − H = (g − 1) H + μ_S − g μ_H, g = σ_S / (σ_H + ε): one pass over H after the statistics, which are
    over positions, for each row and channel; unbiased deviations. Both (rows, positions, channels).

    The difference to the published formula is ε, without which a flat channel would be divided by zero.
    """
    deviation, mean = torch.std_mean(hidden, 1, keepdim=True)
    new_deviation, new_mean = torch.std_mean(style, 1, keepdim=True)
    gain = new_deviation / (deviation + EPSILON)
    return torch.addcmul(new_mean - gain * mean, hidden, gain - 1)


def guided(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Z⁺ led away from Z⁻ by normalised attention guidance (arXiv:2505.21179 §3.2), for each position:

        Z̃ = Z⁺ + φ (Z⁺ − Z⁻)      out = α Z̃ · min(1, τ ‖Z⁺‖₁ / ‖Z̃‖₁) + (1 − α) Z⁺

    with φ the scale. Where both are the same, nothing changes. All (rows, positions, channels).
    """
    led = torch.add(positive, positive - negative, alpha=scale)
    exact = torch.promote_types(led.dtype, torch.float32)
    before, after = (torch.linalg.vector_norm(x, 1, -1, keepdim=True, dtype=exact) for x in (positive, led))
    shorter = (TAU * before / after.clamp_min(1e-12)).clamp_max(1.0).to(led)
    return torch.lerp(positive, led * shorter, ALPHA)


def grid_of(positions: int, latent: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of a layer's grid of positions, from those of the latent; None when nothing fits.

    A UNet halves a picture by strided convolutions, which round up.
    """
    height, width = latent
    while height * width > positions:
        height, width = -(-height // 2), -(-width // 2)
    return (height, width) if height * width == positions else None


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask (1, 1, height, width) as a factor for each position of a grid: (1, positions, 1). Areas are averaged."""
    return functional.interpolate(mask, grid, mode="area").flatten(1)[..., None]
