"""Taking content out of patch features, for plus adapters. Experimental: docs/decisions/0006-removing-content.md.

A plus adapter reads the hidden states of all patches, one layer before CLIP's joint space, where no text lives and
plain subtraction is not defined. Both methods here read each token by itself into the joint space (`PatchHead.dense`):

*fade* asks which tokens speak of the content and blends those toward the tokens of a picture that shows nothing.
*pull* asks what the methods of `core.content` would change in that reading, and makes the smallest change of the hidden
states that has this effect, to first order.

hidden: (n, tokens, width), of n pictures · content in the joint space (k, projection).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .content import Content, cosines, remove
from .patch_head import PatchHead

THRESHOLD = 1.0  # standard deviations above a picture's mean at which a token is half content
SHARPNESS = 4.0  # per standard deviation
_RIDGE = 1e-6  # relative: keeps directions that hardly reach the joint space from being moved far
_FLAT = 1e-4  # spread of cosines below which a picture's tokens do not differ


@dataclass(frozen=True, eq=False)
class PatchRemoval:
    """What is to go from a picture's hidden states, and what it takes to say so."""

    content: Content
    method: str  # of core.content
    scale: float
    head: PatchHead
    grey: Tensor  # (1, tokens, width) hidden states of the mid-grey picture


def fade(hidden: Tensor, removal: PatchRemoval) -> Tensor:
    """h' = h + m(g − h), with the mid-grey picture's tokens g and m (n, tokens) between 0 and 1.

    A token's sign of the content is its cosine with it, less its median cosine with what is unrelated, so that tokens
    which resemble everything do not count. In standard deviations z from the picture's mean: m = s·w·sigmoid(4(z − 1)),
    the largest over phrases, at most 1. Method and level do not matter, only `off` does.
    """
    share = content_share(hidden, removal)
    return (hidden + share[..., None] * (removal.grey - hidden)).to(hidden.dtype)


def content_share(hidden: Tensor, removal: PatchRemoval) -> Tensor:
    """m (n, tokens): how far each token is faded, from 0 to 1. A map of where the content is."""
    content = removal.content
    said = removal.head.dense(hidden.float()).flatten(0, 1)  # (n·tokens, projection)
    signs = (cosines(said, content.embeds) - content.levels(said)).unflatten(0, hidden.shape[:2])
    deviation, mean = torch.std_mean(signs, dim=1, keepdim=True, correction=0)
    z = (signs - mean) / deviation.clamp_min(_FLAT)
    present = content.weights * (content.embeds.norm(dim=1) > 0)
    return (removal.scale * present * torch.sigmoid(SHARPNESS * (z - THRESHOLD))).amax(dim=-1).clamp(0.0, 1.0)


def pull(hidden: Tensor, removal: PatchRemoval) -> Tensor:
    """h' = h − Jᵀ(JJᵀ)⁻¹Δ, the smallest change that moves each token's reading f(h) by −Δ, to first order.

    f is `PatchHead.dense`; Δ = f − remove(f) is what the unit's method takes from the reading, in the span of the
    content; J (k, width) is the derivative of f along the content, through projection, norms and the last layer's value
    path. For one phrase, g = ∂⟨f, t̂⟩/∂h: h' = h − ⟨Δ, t̂⟩g/‖g‖².
    """
    states = hidden.float()
    basis = _basis(removal.content)  # (k, projection), orthonormal
    if not len(basis):
        return hidden
    said, slopes = removal.head.reading(states, basis)
    flat = said.flatten(0, 1)
    change = flat - remove(removal.method, flat, removal.content, removal.scale)
    wanted = (change @ basis.mT).unflatten(0, states.shape[:2])  # (n, tokens, k)
    gram = slopes @ slopes.mT  # (n, tokens, k, k)
    ridge = _RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1).clamp_min(1e-12)
    gram = gram + ridge[..., None, None] * torch.eye(len(basis))
    step = torch.linalg.solve(gram, wanted[..., None])  # (n, tokens, k, 1)
    return (states - (slopes.mT @ step)[..., 0]).to(hidden.dtype)


def _basis(content: Content) -> Tensor:
    """Orthonormal rows that span the content: (rank, projection) float32."""
    _, s, vh = torch.linalg.svd(content.embeds.double(), full_matrices=False)
    return vh[s > 1e-5 * s.max().clamp_min(1e-12)].float()


PATCH_METHODS: dict[str, Callable[[Tensor, PatchRemoval], Tensor]] = {"fade": fade, "pull": pull}
PATCH_METHOD = "pull"  # what a unit gets: it leaks as little as fade and keeps the style (decision 6)


def remove_from_patches(hidden: Tensor, removal: PatchRemoval, patch_method: str = PATCH_METHOD) -> Tensor:
    """Hidden states without the content: (n, tokens, width) → the same."""
    if removal.method == "off" or removal.scale == 0 or not len(removal.content.embeds):
        return hidden
    return PATCH_METHODS[patch_method](hidden, removal)
