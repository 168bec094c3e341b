"""Taking the content out of a reference: the text's part of the image embedding is removed before the projection.

Both vectors lie in one CLIP space and are used as the encoders give them, without normalisation:
e = pooled, projected image embedding; t = pooled, projected text embedding of the content prompt.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def subtract(image_embeds: Tensor, text_embeds: Tensor, scale: float) -> Tensor:
    """e' = e − s·t (InstantStyle, arXiv:2404.02733 §3.3.1; InstantStyle@6b40588 ip_adapter.py:272-292).

    image_embeds (n, width), text_embeds (1, width) → (n, width).
    """
    return image_embeds - scale * text_embeds


def project(image_embeds: Tensor, text_embeds: Tensor, scale: float) -> Tensor:
    """e' = e − λ⟨e, t̂⟩t̂ with t̂ = t/‖t‖: the component along the text goes, λ times; λ = 1 makes e' ⊥ t.

    image_embeds (n, width), text_embeds (1, width) → (n, width). A zero text vector removes nothing.
    """
    direction = text_embeds / text_embeds.norm().clamp_min(1e-12)
    return image_embeds - scale * (image_embeds @ direction.mT) * direction


METHODS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"subtract": subtract, "project": project}
