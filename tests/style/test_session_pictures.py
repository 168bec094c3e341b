"""How a unit's pictures are seen and put together reaches the keys and values: against transformers and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from lib_instantstyle.style.session import StyleSession

from ..by_hand import CLOSE, World, attach
from ..jobs import unit
from ..tiny import picture

TALL, WIDE = picture(5, (36, 108)), picture(6, (108, 36))
HIGH, BROAD = TALL.resize((32, 96), Image.Resampling.BICUBIC), WIDE.resize((96, 32), Image.Resampling.BICUBIC)
SEEN = [
    ("top", TALL, HIGH, [(0, 0, 32, 32)]),
    ("bottom", TALL, HIGH, [(0, 64, 32, 96)]),
    ("left", WIDE, BROAD, [(0, 0, 32, 32)]),
    ("right", WIDE, BROAD, [(64, 0, 96, 32)]),
    ("squash", WIDE, WIDE, [(0, 0, 108, 36)]),
    ("tiles", WIDE, WIDE, [(0, 0, 36, 36), (36, 0, 72, 36), (72, 0, 108, 36)]),
    ("tiles", TALL, TALL, [(0, 0, 36, 36), (0, 36, 36, 72), (0, 72, 36, 108)]),
]


@pytest.fixture
def by_hand(world: Path) -> World:
    return World(world)


def expect(found: dict[int, tuple[Tensor, Tensor]], by_hand: World, cond: Tensor) -> None:
    """Keys of conditional rows from image embeddings (n, width), whose tokens stand side by side."""
    tokens = by_hand.tokens(cond).flatten(0, 1)
    for layer, (key, _) in found.items():
        torch.testing.assert_close(key[1], by_hand.key(tokens, layer), **CLOSE)


@pytest.mark.parametrize(("crop", "image", "scaled", "boxes"), SEEN, ids=lambda x: x if isinstance(x, str) else "")
def test_a_crop_is_what_the_encoder_sees_of_a_reference(
    session: StyleSession, by_hand: World, crop: str, image: Image.Image, scaled: Image.Image, boxes: list[Any]
) -> None:
    parts = [scaled.crop(box).resize((32, 32), Image.Resampling.BICUBIC) for box in boxes]
    found = attach(session, unit(image=(image,), crop=crop))
    expect(found, by_hand, by_hand.embeds_of(*parts).mean(0, keepdim=True))


def test_each_crop_of_a_picture_is_kept_by_itself(session: StyleSession) -> None:
    keys = [attach(session, unit(image=(TALL,), crop=crop)) for crop in ("center", "top", "pad", "squash", "tiles")]
    first = [next(iter(found.values()))[0] for found in keys]
    assert not any(torch.equal(one, other) for at, one in enumerate(first) for other in first[:at])
