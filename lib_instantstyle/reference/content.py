"""Taking the content out of a reference: its part of the image embedding is removed before the projection.

All vectors lie in one CLIP space and are used as the encoders give them, without normalisation: e, the pooled,
projected image embedding; t, the pooled, projected embedding of what is to go. Whatever the precision of e, the
arithmetic runs in float32 at least, and the result has e's precision.

e: (n, width), of n pictures · t: (k, width), of k things · weights: (k,) · t̂ = t/‖t‖; a thing of zero length is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_SAME = 1e-5  # relative: directions nearer to each other than this count as one
ROWS = 1024  # pictures, or tokens, worked on at once: with 64 things 34 MB a tensor
_FULL = 0.98  # of ‖e'‖²: more of it than this cannot be asked to lie along the content


@dataclass(frozen=True, eq=False)
class Content:
    """What is to go, in the CLIP space of the picture it is taken from."""

    embeds: Tensor  # (k, width) of phrases and pictures
    weights: Tensor  # (k,), 1 is a phrase's own
    unrelated: tuple[Tensor, ...]  # for each row (probes, width): what has nothing to do with the picture; maybe none

    def __add__(self, other: Content) -> Content:
        embeds, weights = torch.cat([self.embeds, other.embeds]), torch.cat([self.weights, other.weights])
        return Content(embeds, weights, self.unrelated + other.unrelated)

    def levels(self, image_embeds: Tensor) -> Tensor:
        """τ (n, k): each picture's median cosine with what is unrelated to it, float32; 0 where nothing is known."""
        nothing = image_embeds.new_zeros(len(image_embeds), dtype=torch.float32)
        known = {id(probes): probes for probes in self.unrelated}  # phrases share theirs
        found = {
            name: cosines(image_embeds, probes).median(dim=1).values if len(probes) else nothing
            for name, probes in known.items()
        }
        return torch.stack([found[id(probes)] for probes in self.unrelated], dim=1)


def cosines(image_embeds: Tensor, embeds: Tensor) -> Tensor:
    """cos(e, t) of every picture with every thing: (n, width), (k, width) → (n, k) float32; 0 for a zero vector."""
    return _directions(image_embeds.float()) @ _directions(embeds.float()).mT


def subtract(image_embeds: Tensor, embeds: Tensor, scale: float) -> Tensor:
    """e' = e − s·t (InstantStyle, arXiv:2404.02733 §3.3.1; InstantStyle@6b40588 ip_adapter.py:272-292).

    image_embeds (n, width), embeds (1, width) → (n, width).
    """
    return (image_embeds.float() - scale * embeds.float()).to(image_embeds.dtype)


def project(image_embeds: Tensor, embeds: Tensor, scale: float, weights: Tensor | None = None) -> Tensor:
    """e' = e − λ Σᵢ wᵢ⟨e, qᵢ⟩qᵢ; for one thing e − λw⟨e, t̂⟩t̂. λ = 1 with weights 1 makes e' ⊥ every t.

    The q are orthonormal, so that what two things share goes once. They are those nearest to the t̂ when nearness
    counts by weight: the polar factor of T̂·diag(w), from its singular vectors (weighted symmetric orthogonalisation:
    Löwdin, J. Chem. Phys. 18, 365 (1950); Carlson and Keller, Phys. Rev. 105, 102 (1957)). No order of the things
    enters. Where all weights are w, the sum is w times the orthogonal projection onto their span; a thing whose weight
    goes to 0 steps out continuously, and at 0 might as well not be there.

    image_embeds (n, width), embeds (k, width), weights (k,) → (n, width).
    """
    e, (t, w) = image_embeds.double(), _present(embeds, weights)
    q = _nearest_orthonormal(t * w[:, None])  # (k, width)
    return (e - scale * (e @ q.mT * w) @ q).to(image_embeds.dtype)


def auto(
    image_embeds: Tensor, embeds: Tensor, scale: float, levels: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """e' = e − λd, where e − d is no more similar to any t than unrelated text is: cos(e − d, tᵢ) = τᵢ.

    For one t, with a = ⟨e, t̂⟩ and r = e − a·t̂: let e' = r + b·t̂. cos(e', t) = b/√(‖r‖² + b²) = τ gives
    b = τ‖r‖/√(1 − τ²), so d = (a − b)·t̂: λ = 1 hits τ exactly. Seen from *project*, whose scale multiplies a, that is a
    scale of 1 − τ‖r‖/(a√(1 − τ²)); `auto_scale` gives it.

    For several t: let T̂ have the t̂ as rows, G = T̂T̂ᵀ, r = e without the part in their span, and e' = r + q with q
    in the span. T̂e' = ‖e'‖·c for the cosines c asked for means q = ‖e'‖·T̂ᵀG⁻¹c, and ‖e'‖² = ‖r‖² + ‖q‖² means
    ‖e'‖ = ‖r‖/√(1 − cᵀG⁻¹c). Here cᵢ = cᵢ⁰ − wᵢ(cᵢ⁰ − τᵢ) with the cosines c⁰ of e: weight 1 asks for τ, less for a
    part of the way. τ is an upper bound: what lies at or below it is let be, also when it would have to be added to
    stay there because something like it goes (d is a sum of things with coefficients above zero).

    image_embeds (n, width), embeds (k, width), levels τ (n, k), 0 if not given, weights (k,) → (n, width).
    """
    d = _removal(image_embeds, embeds, levels, weights)
    return (image_embeds.double() - scale * d).to(image_embeds.dtype)


def auto_scale(
    image_embeds: Tensor, embeds: Tensor, levels: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """The scale at which *project* takes away as much of the content as *auto* does at 1: (n,) float32.

    ⟨d, p⟩/⟨p, p⟩ with p the part of e in the span of the things; for one thing 1 − τ‖r‖/(a√(1 − τ²)), or 0 at or
    under τ.
    """
    d, e = _removal(image_embeds, embeds, levels, weights), image_embeds.double()
    q = _nearest_orthonormal(_present(embeds, weights)[0])
    part = e @ q.mT @ q
    return ((d * part).sum(dim=1) / (part * part).sum(dim=1).clamp_min(1e-12)).float()


def renormalised(after: Tensor, before: Tensor) -> Tensor:
    """`after` with the length that `before` has, row by row: (n, width) → (n, width). A zero vector stays zero."""
    length, wanted = (x.float().norm(dim=-1, keepdim=True) for x in (after, before))
    return (after.float() * (wanted / length.clamp_min(1e-12))).to(after.dtype)


def remove(method: str, image_embeds: Tensor, content: Content, scale: float) -> Tensor:
    """e without the content, by the method of that name: (n, width) → (n, width)."""
    return METHODS[method](image_embeds, content, scale) if len(content.embeds) else image_embeds


# Each method on what a unit gives it. The paper's takes a whole text as one phrase: its caller sees to that.
METHODS: dict[str, Callable[[Tensor, Content, float], Tensor]] = {
    "subtract": lambda e, content, scale: subtract(e, content.weights[None] @ content.embeds.float(), scale),
    "project": lambda e, content, scale: project(e, content.embeds, scale, content.weights),
    "auto": lambda e, content, scale: auto(e, content.embeds, scale, content.levels(e), content.weights),
    "off": lambda e, content, scale: e,
}


def _directions(vectors: Tensor) -> Tensor:
    """Unit vectors (k, width); zero stays zero."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _present(embeds: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """t̂ (k, width) and weights (k,) in float64, zero for what is not there."""
    directions = _directions(embeds.double())
    w = torch.ones(len(directions), dtype=torch.float64) if weights is None else weights.double()
    w = w * (directions.norm(dim=1) > 0.5)
    return directions * (w > 0)[:, None], w


def _nearest_orthonormal(vectors: Tensor) -> Tensor:
    """The polar factor (MMᵀ)^(-½)M of (k, width) vectors M, without the directions in which there is nothing."""
    squares, u = torch.linalg.eigh(vectors @ vectors.mT)  # of the singular values
    real = squares > _SAME**2 * squares.amax().clamp_min(1e-300) if len(squares) else squares > 0
    inverse = torch.where(real, squares, torch.ones_like(squares)).rsqrt() * real
    return (u * inverse) @ u.mT @ vectors


def _removal(image_embeds: Tensor, embeds: Tensor, levels: Tensor | None, weights: Tensor | None) -> Tensor:
    """d (n, width) in float64: what *auto* takes from each picture at a scale of 1.

    Pictures and things meet in their products alone, so all that grows with the pictures is (n, k).
    """
    (t, w), e = _present(embeds, weights), image_embeds.double()
    length = e.norm(dim=1, keepdim=True).clamp_min(1e-12)
    along = e @ t.mT  # (n, k)
    now = along / length  # c⁰
    tau = torch.zeros_like(now) if levels is None else levels.double()
    wanted = now - w * (now - tau)
    acting = (w > 0) & (now > tau)
    parts = zip(*(x.split(ROWS) for x in (length, along, wanted, acting)))
    return torch.cat([_settled(t @ t.mT, *part) for part in parts]) @ t if len(along) else torch.zeros_like(e)


def _settled(gram: Tensor, length: Tensor, along: Tensor, wanted: Tensor, acting: Tensor) -> Tensor:
    """m (n, k) ≥ 0, how much of each thing goes; `length` (n, 1), `acting` (n, k): the things above their τ.

    Things that would have to be added step back, the worst first, twins together; pictures that have none are settled.
    """
    sound, settled, rows = _is_sound(gram), torch.zeros_like(along), torch.arange(len(along))
    inverse = _inverses(gram, acting, sound)
    while len(rows):
        found = _amounts(inverse, length, along, wanted, acting)
        settled[rows] = found
        added = found < -1e-9 * length
        leaving = added & (found <= found.amin(dim=1, keepdim=True) * (1 - 1e-6))
        on = added.any(dim=1)
        rows, leaving, inverse = rows[on], leaving[on], inverse[on]
        length, along, wanted, acting = length[on], along[on], wanted[on], acting[on] & ~leaving
        inverse = _without(inverse, leaving) if sound else _inverses(gram, acting, sound)
    return settled


def _amounts(inverse: Tensor, length: Tensor, along: Tensor, wanted: Tensor, acting: Tensor) -> Tensor:
    """m (n, k), 0 for things that do not act, such that e − mT̂ has the cosines `wanted` (n, k) with those that do."""
    along, wanted = (along * acting)[:, None], (wanted * acting)[:, None]  # (n, 1, k)
    rest = length[:, None] ** 2 - along @ inverse @ along.mT  # ‖r‖² (n, 1, 1)
    full = (wanted @ inverse @ wanted.mT).clamp(0.0, _FULL)
    after = (rest.clamp_min(0.0) / (1 - full)).sqrt()  # ‖e'‖
    return ((along - after * wanted) @ inverse)[:, 0] * acting


def _is_sound(gram: Tensor) -> bool:
    """Whether the things that are there are independent; then so are any of them (Cauchy's interlacing)."""
    there = gram.diagonal() > 0.5
    squares = torch.linalg.eigvalsh(gram[there][:, there])
    return not len(squares) or bool(squares[0] > _SAME * squares[-1])


def _inverses(gram: Tensor, acting: Tensor, sound: bool) -> Tensor:
    """G⁻¹ of the acting things alone, zero elsewhere: (n, k, k). Where they are not independent, the pseudo-inverse."""
    both = acting[:, :, None] & acting[:, None, :]
    if not sound:
        return torch.linalg.pinv(gram * both, rtol=_SAME, hermitian=True)
    return torch.linalg.inv(gram * both + torch.diag_embed((~acting).double())) * both


def _without(inverse: Tensor, leaving: Tensor) -> Tensor:
    """The inverse once things leave: A − aⱼaⱼᵀ/aⱼⱼ for each, the Schur complement. (n, k, k), (n, k) → (n, k, k)."""
    for one in range(int(leaving.sum(dim=1).max())) if len(leaving) else ():
        j = leaving.int().cumsum(dim=1).eq(one + 1).int().argmax(dim=1)  # of each picture the next that leaves
        column = inverse.gather(2, j[:, None, None].expand(-1, inverse.shape[1], 1))  # (n, k, 1)
        pivot = column.gather(1, j[:, None, None])
        is_left = leaving.sum(dim=1)[:, None, None] > one
        inverse = inverse - torch.where(is_left, column @ column.mT / pivot.clamp_min(1e-300), 0.0)
    return inverse
