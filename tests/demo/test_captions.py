"""What the world's UNet is told while it is trained, and that each of its blocks hears its own part of it."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest
import torch

from demo.world import assembly, captions
from demo.world.dataset import scenes
from demo.world.scenes import Scene
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.routing import LAYOUT_BLOCK, STYLE_BLOCK

SCENE = Scene("house", "left", "small", "sunset", "hatched")
STYLE_WORDS, LAYOUT_WORDS = ("sunset colors", "hatched"), ("small", "on the left")


def said(count: int = 300) -> list[tuple[str, str, str, str]]:
    rng = np.random.default_rng(0)
    return [captions.random_captions(SCENE, rng) for _ in range(count)]


def test_each_form_leaves_out_what_its_block_is_not_to_hear() -> None:
    for whole, style, layout, subject in said():
        assert not any(word in style for word in LAYOUT_WORDS)
        assert not any(word in layout for word in STYLE_WORDS)
        assert subject in ("", "a house")
        for word in STYLE_WORDS:
            assert (word in style) == (word in whole)
        for word in LAYOUT_WORDS:
            assert (word in layout) == (word in whole)


def test_some_captions_tell_all_and_some_nothing() -> None:
    wholes = [forms[0] for forms in said()]
    assert {"", SCENE.caption()} < set(wholes)
    assert 0.05 < wholes.count("") / len(wholes) < 0.2


@pytest.fixture(scope="module")
def unet():
    return assembly.pipeline(compact=True).unet


@pytest.fixture(scope="module")
def lesson() -> captions.Lesson:
    shown = scenes(8, 1)
    return captions.Captions(shown).draw(torch.arange(8), torch.Generator().manual_seed(0))


@torch.no_grad()
def heard(unet, lesson: captions.Lesson) -> dict[str, torch.Tensor]:
    """What each block's first cross-attention was given in one call of the UNet."""
    given: dict[str, torch.Tensor] = {}
    with captions.each_block_its_words(unet, lesson) as told, ExitStack() as stack:
        for layer, attn2 in attention_layers(unet).items():
            keep = partial(keep_context, given, layer.block)
            stack.callback(attn2.register_forward_pre_hook(keep, with_kwargs=True).remove)
        added = {"text_embeds": told.pooled, "time_ids": torch.zeros(8, 6)}
        unet(torch.zeros(8, 4, 16, 16), 500, told.tokens, encoder_attention_mask=told.mask, added_cond_kwargs=added)
    return given


def keep_context(given: dict[str, torch.Tensor], block: str, module, args, kwargs) -> None:
    given.setdefault(block, kwargs["encoder_hidden_states"])


def test_each_block_hears_its_own_words(unet, lesson: captions.Lesson) -> None:
    given = heard(unet, lesson)
    own = {STYLE_BLOCK: lesson.style.tokens, LAYOUT_BLOCK: lesson.layout.tokens}
    assert len(given) == 11
    for block, tokens in given.items():
        assert torch.equal(tokens, own.get(block, lesson.subject.tokens)), block
    assert not torch.equal(lesson.style.tokens, lesson.subject.tokens)


def test_no_hook_is_left_behind_even_after_an_error(unet, lesson: captions.Lesson) -> None:
    with pytest.raises(RuntimeError, match="halfway"), captions.each_block_its_words(unet, lesson):
        raise RuntimeError("halfway")
    assert not any(module._forward_pre_hooks for module in unet.modules())
