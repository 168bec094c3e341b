"""What training tells the UNet of a picture, and which of its blocks hear which part of it.

SDXL's blocks took to their work by themselves, over far more training than a small world can have: left to itself this
UNet hears every word in its shallow blocks, and the deep ones hardly change a picture. So most lessons tell the words
for palette and texture to the style block alone, those for place and size to the layout block alone, and to all others
the subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.routing import LAYOUT_BLOCK, STYLE_BLOCK

from .clip import trained_towers
from .prompts import Prompts, read_prompts
from .scenes import Scene

SAID_SHARE = {"subject": 0.9, "layout": 0.6, "palette": 0.85, "texture": 0.9}  # how often a caption tells each part
EMPTY_SHARE = 0.1  # of captions that say nothing, for classifier-free guidance
STYLE = frozenset(("palette", "texture"))


class Lesson(NamedTuple):
    """The captions of some pictures: whole, and as single blocks hear them."""

    whole: Prompts
    style: Prompts  # without place and size
    layout: Prompts  # without palette and texture
    subject: Prompts


def random_captions(scene: Scene, rng: np.random.Generator) -> tuple[str, str, str, str]:
    """One caption, which tells each part of the scene or leaves it out, in the forms of a `Lesson`."""
    said = frozenset(part for part, share in SAID_SHARE.items() if rng.random() < share)
    said = frozenset() if rng.random() < EMPTY_SHARE else said
    whole, style, layout, subject = map(scene.caption, (said, said - {"layout"}, said - STYLE, said & {"subject"}))
    return whole, style, layout, subject


class Captions:
    """Every caption once, with what the text towers make of it."""

    def __init__(self, shown: Sequence[Scene], per_scene: int = 4) -> None:
        rng = np.random.default_rng(1)
        said = [[random_captions(scene, rng) for _ in range(per_scene)] for scene in shown]
        every = dict.fromkeys(caption for scene in said for forms in scene for caption in forms)
        number = {caption: i for i, caption in enumerate(every)}
        self._numbers = torch.tensor([[[number[caption] for caption in forms] for forms in scene] for scene in said])
        self._prompts = read_prompts(trained_towers(), list(number))
        if "" in number:  # as SDXL's pipelines and the WebUI hand over an empty negative prompt
            self._prompts.tokens[number[""]] = 0
            self._prompts.pooled[number[""]] = 0

    def draw(self, picked: Tensor, made: torch.Generator) -> Lesson:
        """One of its captions for each picture."""
        which = torch.randint(0, self._numbers.shape[1], (len(picked),), generator=made)
        return Lesson(*(self._prompts[numbers] for numbers in self._numbers[picked, which].T))


@contextmanager
def each_block_its_words(unet: nn.Module, lesson: Lesson) -> Iterator[Prompts]:
    """Let the style and layout blocks hear their own forms of a lesson; gives what all others are to be told."""
    tokens = {STYLE_BLOCK: lesson.style.tokens, LAYOUT_BLOCK: lesson.layout.tokens}

    def hear(own: Tensor) -> Any:
        return lambda module, args, kwargs: (args, {**kwargs, "encoder_hidden_states": own})

    handles = [
        attn2.register_forward_pre_hook(hear(tokens[layer.block]), with_kwargs=True)
        for layer, attn2 in attention_layers(unet).items()
        if layer.block in tokens
    ]
    try:
        yield lesson.subject
    finally:
        for handle in handles:
            handle.remove()
