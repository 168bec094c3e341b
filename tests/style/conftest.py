"""What the tests of the core share."""

from __future__ import annotations

import pytest
from torch import nn

from ..tiny import cross_attention
from .styled import CONTEXT, HEADS, WIDTH


@pytest.fixture(params=["ldm", "diffusers"])
def attn2(request: pytest.FixtureRequest) -> nn.Module:
    return cross_attention(request.param, WIDTH, CONTEXT, HEADS)
