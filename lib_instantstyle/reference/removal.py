"""What a unit takes out of its reference: the content in the joint space, the embedding without it, and what is left.

Everything here is a matter of milliseconds once pictures and texts are encoded, patch features apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..files.image_encoders import EncoderInfo
from ..units.phrases import PROBES, Phrase, parse_phrases
from ..units.unit import StyleUnit
from .content import Content, auto_scale, cosines, remove, renormalised
from .embedding import Embedder
from .names import fingerprint
from .patch_content import PATCH_METHOD, PatchRemoval, remove_from_patches
from .patch_head import PatchHead, read_patch_head
from .plans import ReferencePlan


@dataclass(frozen=True, eq=False)
class Reference:
    """A unit's pictures as the encoder gives them, and what is to go from them."""

    unit: StyleUnit
    encoder: EncoderInfo
    cond: Tensor  # clip_image_embeds of n pictures: (n, width), or (n, tokens, width) of a plus adapter
    uncond: Tensor  # (1, …) those of the picture to avoid, or of none: zeros, or the grey one's of a plus adapter
    content: Content | None = None  # in the joint space, None when nothing is to go
    grey: Tensor | None = None  # (1, tokens, width) of a plus adapter
    kept_head: PatchHead | None = None  # the encoder's, where somebody has it already

    @property
    def is_patches(self) -> bool:
        """Whether these are a plus adapter's hidden states."""
        return self.grey is not None

    @cached_property
    def head(self) -> PatchHead:
        """The end of the encoder, for patch features; read from the file when first asked for."""
        return self.kept_head or read_patch_head(self.encoder)

    def cleaned(self, scale: float | None = None) -> Tensor:
        """cond without the content, by the unit's method, at its scale or at another: the shape of cond."""
        if self.content is None:
            return self.cond
        after = self._without(self.content, self.unit.removal_strength if scale is None else scale)
        return renormalised(after, self.cond) if self.unit.content_renorm else after

    def _without(self, content: Content, scale: float) -> Tensor:
        method = self.unit.content_method
        if self.grey is None:
            return remove(method, self.cond, content, scale)
        return remove_from_patches(self.cond, PatchRemoval(content, method, scale, self.head, self.grey))

    def joint(self, embeds: Tensor) -> Tensor:
        """cond, or what was made of it, in the joint space with text: (n, projection)."""
        return self.head.pooled(embeds) if self.is_patches else embeds

    def digest(self) -> str:
        """Changes with whatever `cleaned` and `uncond` are made of."""
        found = hashlib.sha256(repr(self._settings()).encode())
        for tensor in self._tensors():
            found.update(repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        return found.hexdigest()

    def _settings(self) -> tuple[object, ...]:
        if self.content is None:
            return ()
        unit, patches = self.unit, (PATCH_METHOD, fingerprint(self.encoder.path)) if self.is_patches else ()
        return unit.content_method, unit.removal_strength, unit.content_renorm, patches

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.cond, self.uncond)
        if self.content is not None:
            yield from (self.content.embeds, self.content.weights, *self.content.unrelated)
        if self.grey is not None:
            yield self.grey


@dataclass(frozen=True)
class Leak:
    """How much a phrase is in the reference: cosines, the mean over the pictures."""

    text: str
    before: float
    after: float


def read_reference(plan: ReferencePlan, embedder: Embedder) -> Reference:
    """Everything that the unit's pictures and words come to, encoding what is not known yet."""
    feature, removes = plan.adapter.feature, plan.unit.removes_content
    content, avoided = plan.read["content_image"] if removes else (), plan.read["negative_image"]
    is_patches = feature.kind == "hidden"
    wanted = [(picture, feature) for picture in (*plan.pictures, *avoided, *((None,) if is_patches else ()))]
    joint = [(picture, plan.joint) for picture in (*content, *((None,) if content else ()))]
    found = embedder.images([*wanted, *joint], plan.encoder)
    cond = torch.cat(found[: len(plan.pictures)])
    grey = found[len(wanted) - 1] if is_patches else None
    nothing = torch.zeros_like(cond[:1]) if grey is None else grey
    uncond = found[len(plan.pictures)] if avoided else nothing
    to_go = _content(plan, embedder, found[len(wanted) :]) if removes else None
    return Reference(plan.unit, plan.encoder, cond, uncond, to_go, grey)


def content_phrases(unit: StyleUnit) -> tuple[Phrase, ...]:
    """What the unit's method takes for a phrase: the paper's the whole prompt, the others what commas part."""
    if unit.content_method == "subtract":
        return (Phrase(unit.content_prompt),) if unit.content_prompt.strip() else ()
    return parse_phrases(unit.content_prompt)


def _content(plan: ReferencePlan, embedder: Embedder, pictures: Sequence[Tensor]) -> Content:
    """What is to go. `pictures`: embeddings of those to remove, then the grey one's, or nothing."""
    phrases, unit = content_phrases(plan.unit), plan.unit
    needs_probes = bool(phrases) and (unit.content_method == "auto" or plan.adapter.feature.kind == "hidden")
    texts = [phrase.text for phrase in phrases] + list(PROBES if needs_probes else ())
    embeds = embedder.texts(texts, plan.text_tower) if texts else torch.zeros(0, plan.joint.width)
    weights = torch.tensor([phrase.weight for phrase in phrases])
    words = Content(embeds[: len(phrases)], weights, (embeds[len(phrases) :],) * len(phrases))
    return words + _seen(pictures, unit) if pictures else words


def _seen(pictures: Sequence[Tensor], unit: StyleUnit) -> Content:
    """Pictures to remove. Subtraction takes their mean, the others each direction; unrelated is the grey picture."""
    *embeds, grey = pictures
    weight = 1 / len(embeds) if unit.content_method == "subtract" else 1.0
    return Content(torch.cat(embeds), torch.full((len(embeds),), weight), (grey,) * len(embeds))


def leaks(reference: Reference, texts: Sequence[str], embeds: Tensor, after: Tensor | None = None) -> list[Leak]:
    """Each text's similarity to the reference before and after removal; `embeds` (texts, projection) are the texts'.

    `after` has the shape of `reference.cond`; the unit's own removal if not given. Nothing is encoded.
    """
    cleaned = reference.cleaned() if after is None else after
    before, left = (cosines(reference.joint(x), embeds).mean(dim=0).tolist() for x in (reference.cond, cleaned))
    return [Leak(text, was, now) for text, was, now in zip(texts, before, left)]


def auto_scales(reference: Reference) -> Tensor:
    """For each picture the scale of *project* that takes away what *auto* takes at 1: (n,).

    Meant for the reference of a unit with the method auto, whose content comes with what is unrelated to it.
    """
    e, content = reference.joint(reference.cond), reference.content
    if content is None or not len(content.embeds):
        return torch.zeros(len(e))
    return auto_scale(e, content.embeds, content.levels(e), content.weights)
