"""Ways of removing content that were measured and did not become part of the library (docs/decisions/0014).

Pooled embeddings e (n, width), texts t (k, width) in the same space, strength s → (n, width).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .world.scenes import PALETTES, SUBJECTS, TEXTURES

THETA = 0.8  # the elements above this quantile go: as the authors have it for SDXL
PLACES = ("a {}", "a small {} on the left", "a large {} on the right")
THINGS = [place.format(subject) for subject in SUBJECTS for place in PLACES]
STYLES = [f"{palette} colors, {texture}" for palette in PALETTES for texture in TEXTURES]
RANK_OF_THINGS = 8
RANK_OF_STYLES = 12  # just as many ways in which the world's palettes and textures can differ


def elements(e: Tensor, t: Tensor, scale: float, theta: float = THETA) -> Tensor:
    """e with its elements that agree most with some t weakened: Less is More (arXiv:2502.07466), ê ⊙ t̂ by quantile."""
    agreeing = functional.normalize(e, dim=1)[:, None] * functional.normalize(t, dim=1)  # (n, k, width)
    content = (agreeing >= agreeing.quantile(theta, dim=2, keepdim=True)).any(1)
    return e - scale * e * content


def directions(t: Tensor, rank: int) -> Tensor:
    """(rank, width): those in which texts differ most, orthonormal; IP-Composer (arXiv:2502.13951) for one concept."""
    return torch.linalg.svd(t - t.mean(0), full_matrices=False).Vh[:rank]


def without_things(e: Tensor, t: Tensor, scale: float) -> Tensor:
    """e − s P e, P onto the directions in which names of things differ. Nobody has to say what the picture shows."""
    p = directions(t, RANK_OF_THINGS)
    return e - scale * e @ p.mT @ p


def style_only(e: Tensor, t: Tensor, scale: float, rank: int = RANK_OF_STYLES) -> Tensor:
    """e moved to ē + P (e − ē), P onto the directions in which names of styles differ; ē is the mean picture."""
    p, mean = directions(t, rank), e.mean(0)
    return torch.lerp(e, mean + (e - mean) @ p.mT @ p, scale)
