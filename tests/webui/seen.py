"""What tests ask for, and what they look at after a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ..tiny import encoded, picture


def unit(**fields: Any) -> dict[str, Any]:
    """A unit as an API client sends it."""
    return {"image": encoded(picture()), "adapter": "base", **fields}


def same(some: Sequence[Image.Image], others: Sequence[Image.Image]) -> bool:
    """Whether two jobs made the same pictures, to the last bit."""
    return farthest(some, others) == 0


def farthest(some: Sequence[Image.Image], others: Sequence[Image.Image]) -> int:
    """The largest difference of two jobs' pictures, in steps of 255."""
    pairs = [(np.asarray(one, int), np.asarray(other, int)) for one, other in zip(some, others, strict=True)]
    return max(int(abs(one - other).max()) for one, other in pairs)


def hooks(web: Any) -> int:
    """How many hooks the checkpoint in memory carries."""
    model = getattr(web.sd_model, "model", web.unet)
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())
