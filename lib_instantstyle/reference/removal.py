"""What a unit takes out of its reference: the content in the joint space, the embedding without it, and what is left.

Everything here is a matter of milliseconds once pictures and texts are encoded, patch features apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..files.image_encoders import EncoderInfo
from ..units.phrases import PROBES, Phrase, parse_phrases
from ..units.unit import StyleUnit
from .combining import Combining
from .content import Content, auto_scale, cosines, remove, renormalised
from .embedding import Embedder
from .names import fingerprint
from .patches import PatchHead, read_patch_head, remove_from_patches
from .pictures import Picture
from .plans import ReferencePlan
from .views import View


@dataclass(frozen=True)
class How:
    """In what way content is removed, as a unit asks for it."""

    method: str  # of `content`
    strength: float
    renorm: bool  # whether the embedding gets back the length that it had

    @classmethod
    def of(cls, unit: StyleUnit) -> How:
        return cls(unit.content_method, unit.removal_strength, unit.content_renorm)


@dataclass(frozen=True, eq=False)
class Reference:
    """A unit's pictures as the encoder gives them, and what is to go from them."""

    encoder: EncoderInfo
    cond: Tensor  # clip_image_embeds of n pictures: (n, width), or (n, tokens, width) of a plus adapter
    uncond: Tensor  # (1, …) of what is to be avoided, or of nothing: zeros, or the grey picture's of a plus adapter
    how: How
    content: Content | None = None  # in the joint space, None when nothing is to go
    combining: Combining = field(default_factory=Combining)
    kept_head: PatchHead | None = None  # the encoder's, where somebody has it already

    @property
    def is_patches(self) -> bool:
        """Whether these are a plus adapter's hidden states."""
        return self.cond.dim() == 3

    @cached_property
    def head(self) -> PatchHead:
        """The end of the encoder, for patch features; read from the file when first asked for."""
        return self.kept_head or read_patch_head(self.encoder)

    def cleaned(self, how: How | None = None) -> Tensor:
        """cond without the content, in its own way or in another: the shape of cond."""
        if self.content is None:
            return self.cond
        how = how or self.how
        after = self._without(self.content, how)
        return renormalised(after, self.cond) if how.renorm else after

    def combined(self) -> tuple[Tensor, Tensor]:
        """What is left of the pictures, put together: (m, …) that are projected, and each one's share (m,)."""
        return self.combining.of(self.cleaned())

    def _without(self, content: Content, how: How) -> Tensor:
        if self.is_patches:
            return remove_from_patches(how.method, self.cond, content, how.strength, self.head)
        return remove(how.method, self.cond, content, how.strength)

    def joint(self, embeds: Tensor) -> Tensor:
        """cond, or what was made of it, in the joint space with text: (n, projection)."""
        return self.head.pooled(embeds) if self.is_patches else embeds

    def digest(self) -> str:
        """Changes with whatever `combined` and `uncond` are made of."""
        found = hashlib.sha256(repr(self._settings()).encode())
        for tensor in self._tensors():
            found.update(repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
        return found.hexdigest()

    def _settings(self) -> tuple[object, ...]:
        if self.content is None:
            return (self.combining,)
        return self.combining, self.how, fingerprint(self.encoder.path) if self.is_patches else ""

    def _tensors(self) -> Iterator[Tensor]:
        yield from (self.cond, self.uncond)
        if self.content is not None:
            yield from (self.content.embeds, self.content.weights, *self.content.unrelated)


@dataclass(frozen=True)
class Leak:
    """How much a phrase is in the reference: cosines, the mean over the pictures."""

    text: str
    before: float
    after: float


def read_reference(plan: ReferencePlan, embedder: Embedder) -> Reference:
    """Everything that the unit's pictures and words come to, encoding what is not known yet. The plan's pictures let go
    of their pixels.
    """
    feature, removes, unit = plan.adapter.feature, plan.unit.removes_content, plan.unit
    content, avoided = _plain(plan.read["content_image"] if removes else ()), _plain(plan.read["negative_image"])
    noise = tuple(View(picture, noise=True) for picture in plan.pictures) if unit.negative_noise else ()
    sees_grey = feature.kind == "hidden" and not plan.adapter.nothing_is_zeros
    blank = [None] if sees_grey and not avoided else []
    views = [*plan.views, *avoided, *blank, *noise]
    joint = [(view, plan.joint) for view in (*content, *((None,) if content else ()))]
    found = embedder.images([*((view, feature) for view in views), *joint], plan.encoder)
    plan.let_go()
    seen, noisy = len(plan.views), len(views) - len(noise)
    cond = torch.cat(found[:seen])
    uncond = _unconditional(cond, found[seen:noisy], found[noisy : len(views)], unit.negative_noise)
    to_go = _content(plan, embedder, found[len(views) :]) if removes else None
    return Reference(plan.encoder, cond, uncond, How.of(unit), to_go, Combining(unit.combine, unit.image_weights))


def _unconditional(cond: Tensor, avoided: Sequence[Tensor], noise: Sequence[Tensor], share: float) -> Tensor:
    """(1, …): the mean of what is to be avoided, or nothing, and so much of it the reference's noise."""
    base = _mean(avoided) if avoided else torch.zeros_like(cond[:1])
    return torch.lerp(base, _mean(noise), share) if noise else base


def _mean(embeds: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(embeds)).mean(0, keepdim=True) if len(embeds) > 1 else embeds[0]


def _plain(pictures: Sequence[Picture]) -> tuple[View, ...]:
    return tuple(map(View, pictures))


def content_phrases(unit: StyleUnit) -> tuple[Phrase, ...]:
    """What the unit's method takes for a phrase: the paper's the whole prompt, the others what commas part."""
    if unit.content_method == "subtract":
        return (Phrase(unit.content_prompt),) if unit.content_prompt.strip() else ()
    return parse_phrases(unit.content_prompt)


def _content(plan: ReferencePlan, embedder: Embedder, pictures: Sequence[Tensor]) -> Content:
    """What is to go. `pictures`: embeddings of those to remove, then the grey one's, or nothing."""
    phrases, unit = content_phrases(plan.unit), plan.unit
    needs_probes = bool(phrases) and unit.content_method == "auto"
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

    `after` has the shape of `reference.cond`; the reference's own removal if not given. Nothing is encoded.
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
