"""Content removal by the book: what is left of one picture's embedding, or of its patches.

Written from the formulas (InstantStyle §3.3.1; projections; MaskCLIP for patches) with transformers' own modules;
nothing of lib_instantstyle's arithmetic is imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from live_world import World
from torch import Tensor

if TYPE_CHECKING:
    from oracle_prompts import Content


def without(world: World, content: Content, encoder: Path, state: Tensor) -> Tensor:
    """(1, width) pooled or (1, patches + 1, width) hidden, without the content."""
    texts = text_embeddings(world, content.texts, content.tower)
    if state.dim() == 3:
        return pulled(content, texts[0], encoder, state)
    things = [*texts, *_picture_embeddings(content, encoder)]
    after = _METHODS[content.method](world, content, state[0], torch.stack(things))
    return (after * (state.norm() / after.norm()) if content.keeps_length else after)[None]


def text_embeddings(world: World, texts: tuple[str, ...], tower: Path | None) -> list[Tensor]:
    """(width,) each, by the checkpoint's larger tower or by a full CLIP model's."""
    from oracle_prompts import text_embedding

    if tower is None:
        return [text_embedding(world.checkpoint.weights, text) for text in texts]
    from transformers import CLIPModel, CLIPTokenizer

    tokens = CLIPTokenizer.from_pretrained(tower)(list(texts), padding=True, return_tensors="pt")
    return list(CLIPModel.from_pretrained(tower).eval().get_text_features(**tokens))


def _picture_embeddings(content: Content, encoder: Path) -> list[Tensor]:
    from oracle_prompts import clip_states

    return [] if content.image is None else list(clip_states(encoder, [content.image], hidden=False)[1])


def _subtracted(world: World, content: Content, e: Tensor, things: Tensor) -> Tensor:
    return e - content.scale * things.sum(0)


def _projected(world: World, content: Content, e: Tensor, things: Tensor) -> Tensor:
    q, _ = torch.linalg.qr(things.T.double())  # (width, things)
    return (e - content.scale * (q @ (q.T @ e.double()))).float()


def _automatic(world: World, content: Content, e: Tensor, things: Tensor) -> Tensor:
    """One phrase: λ = 1 − τ‖r‖/(a√(1 − τ²)), with τ the median cosine of e with unrelated texts."""
    from lib_instantstyle.units.phrases import PROBES  # the texts are the project's choice, not its arithmetic

    (t,) = things
    unit, probes = t / t.norm(), torch.stack(text_embeddings(world, PROBES, content.tower))
    level = torch.cosine_similarity(e[None], probes).median()
    along = e @ unit
    rest = (e - along * unit).norm()
    share = 1 - level * rest / (along * (1 - level**2).sqrt())
    return e - content.scale * share.clamp_min(0) * along * unit if along / e.norm() > level else e


_METHODS = {"subtract": _subtracted, "project": _projected, "auto": _automatic}


def pulled(content: Content, text: Tensor, encoder: Path, states: Tensor) -> Tensor:
    """h' = h − s⟨f, t̂⟩·g/‖g‖² for every token, g = ∂⟨f(h), t̂⟩/∂h, f the encoder's end seen by each token alone."""
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(encoder).eval().requires_grad_(False)
    unit = text / text.norm()
    with torch.enable_grad():
        moving = states.clone().requires_grad_()
        along = _said(model, moving) @ unit  # (1, tokens)
        (slope,) = torch.autograd.grad(along.sum(), moving)
    step = content.scale * along.detach() / slope.square().sum(-1)
    return states - step[..., None] * slope


def _said(model: Any, states: Tensor) -> Tensor:
    last = model.vision_model.encoder.layers[-1]
    attention = last.self_attn
    x = states + attention.out_proj(attention.v_proj(last.layer_norm1(states)))
    x = x + last.mlp(last.layer_norm2(x))
    return model.visual_projection(model.vision_model.post_layernorm(x))
