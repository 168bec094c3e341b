"""The world's trained CLIP: an image encoder and the two text towers of its checkpoint, from the packed weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import models, packing, words

CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


@dataclass(frozen=True, eq=False)
class Towers:
    """The three towers, with the few tokens and layers that were trained."""

    vision: nn.Module
    small: nn.Module
    large: nn.Module  # shares the image encoder's space

    @torch.no_grad()
    def text_embeds(self, texts: list[str]) -> Tensor:
        """(n, width) pooled, projected embeddings."""
        return self.large(words.token_ids(texts)).text_embeds

    def save_encoder(self, folder: Path) -> Path:
        """Write the image encoder as an installation has it; returns its weights' file."""
        self.vision.save_pretrained(folder, safe_serialization=True)
        return folder / "model.safetensors"


def pixel_values(pixels: np.ndarray) -> Tensor:
    """(n, SIDE, SIDE, 3) uint8 → (n, 3, SIDE, SIDE) as CLIP's preprocessing gives them."""
    return (torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255 - CLIP_MEAN) / CLIP_STD


def towers() -> Towers:
    """Untrained towers of the world's sizes."""
    count = len(words.known_tokens())
    return Towers(
        models.image_encoder(),
        models.clip_text_tower(count, models.TRAINED_LAYERS),
        models.open_clip_text_tower(count, models.TRAINED_LAYERS),
    )


@lru_cache
def trained_towers(path: Path = packing.CLIP) -> Towers:
    """The towers that ship with the project."""
    made, parts = towers(), packing.read(path)
    made.vision.load_state_dict(parts["vision"], strict=False)
    packing.load_text_tower(made.small, parts["clip_text"])
    packing.load_text_tower(made.large, parts["open_clip_text"])
    for tower in (made.vision, made.small, made.large):
        tower.eval().requires_grad_(False)
    return made


def pack_towers(trained: Towers, path: Path = packing.CLIP) -> None:
    """Write trained towers as the file that ships."""
    vision = {name: tensor for name, tensor in trained.vision.state_dict().items() if "position_ids" not in name}
    states = {
        "vision": vision,
        "clip_text": packing.text_state(trained.small),
        "open_clip_text": packing.text_state(trained.large),
    }
    packing.write(states, path)
