"""Regions against diffusers' IP-Adapter masks.

diffusers samples a mask bicubically at the middle of each place, ours is averaged over the place. Where a mask is even
over each place of the coarsest grid, both mean the same number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.unit import StyleUnit

from ..tiny import TinyHost, picture, unet_inputs
from .test_diffusers import ROWS, Theirs, expect_parity

LATENT = (16, 24)  # the tiny UNet's grids are 8×12 and 4×6
CELL = 16  # pixels of a mask for each place of the coarsest grid


def inputs() -> dict[str, Any]:
    made = torch.Generator().manual_seed(9)
    return {**unet_inputs(len(ROWS)), "sample": torch.randn(len(ROWS), 4, *LATENT, generator=made)}


def mask(seed: int) -> Image.Image:
    """Greys at random, even over each place of the coarsest grid."""
    greys = np.random.default_rng(seed).integers(0, 256, (LATENT[0] // 4, LATENT[1] // 4), dtype=np.uint8)
    return Image.fromarray(greys.repeat(CELL, 0).repeat(CELL, 1))


def as_theirs(one: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(one, np.float32))[None, None] / 255


@torch.no_grad()
def ours(session: StyleSession, *units: StyleUnit) -> Tensor:
    session.attach(session.plan(units))
    session.call.begin(ROWS, len(ROWS), LATENT)
    styled = session.host.unet()(**inputs()).sample
    session.detach()
    return styled


@torch.no_grad()
def theirs(made: Theirs, *masks: Image.Image) -> Tensor:
    fed = inputs()
    fed["added_cond_kwargs"]["image_embeds"] = [made.image_embeds(one, (0,)) for one in made.adapters]
    told = {"ip_adapter_masks": [as_theirs(one) for one in masks]}
    return made.unet(**fed, cross_attention_kwargs=told).sample


def unit(adapter: str, mask: Image.Image, **fields: Any) -> StyleUnit:
    return StyleUnit(image=(picture(),), adapter=adapter, mask=(mask,), **fields)


@pytest.fixture
def plain(host: TinyHost) -> Tensor:
    with torch.no_grad():
        return host.unet()(**inputs()).sample


@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_a_region_equals_a_mask_of_diffusers(
    session: StyleSession, host: TinyHost, plain: Tensor, adapter: str
) -> None:
    found = ours(session, unit(adapter, mask(1), preset="original", weight=0.8))
    expect_parity(found, theirs(Theirs(host, [adapter], [0.8]), mask(1)), plain)


def test_two_regions_equal_two_masks_of_diffusers(session: StyleSession, host: TinyHost, plain: Tensor) -> None:
    style = {"up": {"block_0": [0.0, 0.9, 0.0]}}
    found = ours(session, unit("base", mask(1), weight=0.9), unit("plus", mask(2), preset="original", weight=0.5))
    expect_parity(found, theirs(Theirs(host, ["base", "plus"], [style, 0.5]), mask(1), mask(2)), plain)
