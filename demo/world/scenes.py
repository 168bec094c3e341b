"""What a picture of the world can show: subject and layout (content), palette and texture (style), and its caption."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import astuple, dataclass

import numpy as np

SUBJECTS = ("house", "tree", "fish", "boat", "flower", "star", "cat", "mushroom", "car", "cup")
PLACES = ("left", "centre", "right")
SIZES = ("small", "large")
TEXTURES = ("flat", "hatched", "dotted", "mosaic", "watercolor", "outline")


@dataclass(frozen=True)
class Palette:
    """Colours as 0xRRGGBB, by the role they play in a picture."""

    sky: int
    ground: int
    body: int
    accent: int
    line: int


PALETTES = {
    "sunset": Palette(0xF6A25B, 0x8C3B5E, 0x5A2A6E, 0xFFE08A, 0x2B1236),
    "ocean": Palette(0xA7E3F0, 0x1C6E9C, 0x0E3F66, 0xF3F7E6, 0x06263F),
    "forest": Palette(0xCFE3B0, 0x4C7A36, 0x6B4526, 0xE8C84A, 0x1E2F16),
    "candy": Palette(0xFFD6EC, 0x8FE3CF, 0xF0569B, 0xFFF3A8, 0x7A2C78),
    "night": Palette(0x14183F, 0x262C66, 0x6D7BD6, 0xFFE45E, 0xDCE3FF),
    "sepia": Palette(0xEEDDBB, 0xC29F70, 0x7A5430, 0xFFF6E0, 0x3A2412),
    "ice": Palette(0xF4FAFF, 0xBFD4E6, 0x7895B2, 0xDDF3FA, 0x34495E),
    "fire": Palette(0x2A0606, 0x7C0F0F, 0xE8471C, 0xFFC02E, 0xFFE9C2),
}
KINDS = (SUBJECTS, PLACES, SIZES, tuple(PALETTES), TEXTURES)  # in the order of Scene's fields
HELD_OUT_SHARE = 0.15  # of all combinations of subject, palette and texture; no training picture shows them


@dataclass(frozen=True)
class Scene:
    """One picture's description; `seed` decides the small variations that no word tells."""

    subject: str
    place: str
    size: str
    palette: str
    texture: str
    seed: int = 0

    @property
    def held_out(self) -> bool:
        """Whether training never sees this subject in this style."""
        return _share(f"{self.subject} {self.palette} {self.texture}") < HELD_OUT_SHARE

    @property
    def style(self) -> tuple[str, str]:
        return self.palette, self.texture

    def caption(self, parts: frozenset[str] = frozenset(("subject", "layout", "palette", "texture"))) -> str:
        """The words for the named parts: `a small house on the left, sunset colors, hatched`."""
        words = []
        if "subject" in parts:
            words.append(self._subject_words("layout" in parts))
        if "palette" in parts:
            words.append(f"{self.palette} colors")
        if "texture" in parts:
            words.append(self.texture)
        return ", ".join(words)

    def _subject_words(self, with_layout: bool) -> str:
        if not with_layout:
            return f"a {self.subject}"
        where = "in the centre" if self.place == "centre" else f"on the {self.place}"
        return f"a {self.size} {self.subject} {where}"


def all_styles() -> list[tuple[str, str]]:
    return list(itertools.product(PALETTES, TEXTURES))


def random_scene(rng: np.random.Generator, *, held_out: bool = False) -> Scene:
    """A scene drawn evenly from the training combinations, or from the held-out ones."""
    while True:
        scene = Scene(
            subject=str(rng.choice(SUBJECTS)),
            place=str(rng.choice(PLACES)),
            size=str(rng.choice(SIZES)),
            palette=str(rng.choice(list(PALETTES))),
            texture=str(rng.choice(TEXTURES)),
            seed=int(rng.integers(2**31)),
        )
        if scene.held_out == held_out:
            return scene


def labels(scene: Scene) -> tuple[int, ...]:
    """A scene as class numbers: subject, place, size, palette, texture."""
    return tuple(kind.index(value) for kind, value in zip(KINDS, astuple(scene)))


def _share(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
