"""Draws scenes: a subject's parts as a map of roles, then the style that turns roles into colours and strokes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .scenes import PALETTES, Scene

SIDE = 128  # pixels of a finished picture
MAT = 8  # pixels of the white border; narrow networks with GroupNorm need something that is always the same
INNER = SIDE - 2 * MAT  # pixels of what is drawn
FINE = 2  # drawn at this multiple, then averaged
WHITE = (255, 255, 255)
SKY, GROUND, BODY, ACCENT, LINE = range(5)  # roles, in the order of Palette's fields

Box = tuple[float, float, float, float]


class Pen:
    """Draws a subject's parts in a square of its own, coordinates 0 to 1, y downwards."""

    def __init__(self, roles: Image.Image, left: float, top: float, side: float) -> None:
        self._draw, self._left, self._top, self._side = ImageDraw.Draw(roles), left, top, side

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._left + x * self._side, self._top + y * self._side

    def polygon(self, role: int, *points: tuple[float, float]) -> None:
        self._draw.polygon([self._at(*point) for point in points], fill=role)

    def box(self, role: int, *box: float) -> None:
        self._draw.rectangle([self._at(*box[:2]), self._at(*box[2:])], fill=role)

    def ellipse(self, role: int, *box: float) -> None:
        self._draw.ellipse([self._at(*box[:2]), self._at(*box[2:])], fill=role)


def _house(pen: Pen) -> None:
    pen.box(BODY, 0.15, 0.45, 0.85, 1.0)
    pen.polygon(LINE, (0.05, 0.48), (0.5, 0.05), (0.95, 0.48))
    pen.box(ACCENT, 0.25, 0.58, 0.43, 0.76)
    pen.box(LINE, 0.57, 0.62, 0.75, 1.0)


def _tree(pen: Pen) -> None:
    pen.box(LINE, 0.43, 0.6, 0.57, 1.0)
    pen.ellipse(BODY, 0.12, 0.02, 0.88, 0.7)
    pen.ellipse(ACCENT, 0.3, 0.2, 0.42, 0.32)
    pen.ellipse(ACCENT, 0.58, 0.35, 0.7, 0.47)


def _fish(pen: Pen) -> None:
    pen.polygon(BODY, (0.6, 0.5), (1.0, 0.2), (1.0, 0.8))
    pen.ellipse(BODY, 0.0, 0.22, 0.75, 0.78)
    pen.polygon(ACCENT, (0.35, 0.3), (0.5, 0.7), (0.6, 0.5))
    pen.ellipse(LINE, 0.12, 0.38, 0.22, 0.48)


def _boat(pen: Pen) -> None:
    pen.polygon(BODY, (0.0, 0.68), (1.0, 0.68), (0.8, 1.0), (0.2, 1.0))
    pen.box(LINE, 0.46, 0.0, 0.52, 0.68)
    pen.polygon(ACCENT, (0.56, 0.04), (0.56, 0.6), (0.95, 0.6))
    pen.polygon(ACCENT, (0.42, 0.15), (0.42, 0.6), (0.1, 0.6))


def _flower(pen: Pen) -> None:
    pen.box(LINE, 0.47, 0.5, 0.54, 1.0)
    for x, y in ((0.5, 0.14), (0.74, 0.3), (0.65, 0.56), (0.35, 0.56), (0.26, 0.3)):
        pen.ellipse(BODY, x - 0.17, y - 0.15, x + 0.17, y + 0.17)
    pen.ellipse(ACCENT, 0.37, 0.24, 0.63, 0.5)


def _star(pen: Pen) -> None:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = np.where(np.arange(10) % 2 == 0, 0.5, 0.2)
    pen.polygon(ACCENT, *zip(0.5 + radii * np.cos(angles), 0.52 + radii * np.sin(angles)))
    pen.polygon(BODY, *zip(0.5 + 0.5 * radii * np.cos(angles), 0.52 + 0.5 * radii * np.sin(angles)))


def _cat(pen: Pen) -> None:
    pen.polygon(BODY, (0.1, 0.0), (0.5, 0.3), (0.08, 0.55))
    pen.polygon(BODY, (0.9, 0.0), (0.5, 0.3), (0.92, 0.55))
    pen.ellipse(BODY, 0.06, 0.2, 0.94, 1.0)
    for x in (0.33, 0.67):
        pen.ellipse(ACCENT, x - 0.1, 0.45, x + 0.1, 0.65)
        pen.ellipse(LINE, x - 0.04, 0.48, x + 0.04, 0.62)
    pen.polygon(LINE, (0.43, 0.72), (0.57, 0.72), (0.5, 0.82))


def _mushroom(pen: Pen) -> None:
    pen.box(ACCENT, 0.38, 0.5, 0.62, 1.0)
    pen.polygon(BODY, (0.02, 0.55), (0.15, 0.22), (0.5, 0.05), (0.85, 0.22), (0.98, 0.55))
    for x, y in ((0.32, 0.34), (0.6, 0.24), (0.74, 0.44)):
        pen.ellipse(ACCENT, x - 0.07, y - 0.07, x + 0.07, y + 0.07)


def _car(pen: Pen) -> None:
    pen.polygon(BODY, (0.2, 0.5), (0.32, 0.25), (0.7, 0.25), (0.84, 0.5))
    pen.box(BODY, 0.0, 0.48, 1.0, 0.78)
    pen.polygon(ACCENT, (0.3, 0.48), (0.37, 0.32), (0.65, 0.32), (0.73, 0.48))
    for x in (0.22, 0.78):
        pen.ellipse(LINE, x - 0.14, 0.64, x + 0.14, 0.92)


def _cup(pen: Pen) -> None:
    pen.ellipse(LINE, 0.62, 0.35, 1.0, 0.75)
    pen.ellipse(SKY, 0.7, 0.44, 0.91, 0.66)
    pen.polygon(BODY, (0.1, 0.2), (0.8, 0.2), (0.7, 1.0), (0.2, 1.0))
    pen.ellipse(ACCENT, 0.1, 0.1, 0.8, 0.3)


_SUBJECTS: dict[str, Callable[[Pen], None]] = {
    "house": _house, "tree": _tree, "fish": _fish, "boat": _boat, "flower": _flower,
    "star": _star, "cat": _cat, "mushroom": _mushroom, "car": _car, "cup": _cup,
}  # fmt: skip
_PLACE = {"left": 0.29, "centre": 0.5, "right": 0.71}  # the subject's middle, share of the width
_SIZE = {"small": 0.44, "large": 0.64}  # the subject's side, share of the picture's


def role_map(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(INNER·FINE, INNER·FINE) roles: sky, ground, and the subject standing or floating at its place."""
    full = INNER * FINE
    roles = Image.new("L", (full, full), SKY)
    horizon = full * rng.uniform(0.62, 0.72)
    ImageDraw.Draw(roles).rectangle([0, horizon, full, full], fill=GROUND)
    side = full * _SIZE[scene.size] * rng.uniform(0.94, 1.06)
    left = full * (_PLACE[scene.place] + rng.uniform(-0.03, 0.03)) - side / 2
    _SUBJECTS[scene.subject](Pen(roles, left, full * rng.uniform(0.84, 0.88) - side, side))
    return np.asarray(roles)


def draw(scene: Scene) -> Image.Image:
    """The scene in a white mat, SIDE × SIDE pixels; the same scene always gives the same picture."""
    rng = np.random.default_rng(scene.seed)
    roles = role_map(scene, rng)
    colours = _colours(scene.palette, rng)
    pixels = _TEXTURES[scene.texture](roles, colours, rng)
    fine = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    matted = Image.new("RGB", (SIDE, SIDE), WHITE)
    matted.paste(fine.resize((INNER, INNER), Image.Resampling.BOX), (MAT, MAT))
    return matted


def _colours(palette: str, rng: np.random.Generator) -> np.ndarray:
    """(5, 3) colours of the roles, float 0 to 255, each a little off so that no two pictures are alike."""
    chosen = PALETTES[palette]
    codes = (chosen.sky, chosen.ground, chosen.body, chosen.accent, chosen.line)
    exact = np.array([[code >> 16 & 255, code >> 8 & 255, code & 255] for code in codes], dtype=np.float32)
    return exact + rng.normal(0, 4, exact.shape).astype(np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    across = np.arange(INNER * FINE, dtype=np.float32)
    return np.meshgrid(across, across)


def _flat(roles: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return colours[roles]


def _shaded(colours: np.ndarray) -> np.ndarray:
    """The same colours, dark ones lighter and light ones darker: what strokes are drawn with."""
    light = colours.mean(axis=1, keepdims=True)
    return np.where(light > 110, colours * 0.62, colours * 0.75 + 75)


def _hatched(roles: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    stroke = (x + y) % 16 < 6
    return np.where(stroke[..., None], _shaded(colours)[roles], colours[roles])


def _dotted(roles: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    dot = np.hypot(x % 16 - 8, y % 16 - 8) < 5.2
    return np.where(dot[..., None], _shaded(colours)[roles], colours[roles])


def _mosaic(roles: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    tile, flat = 16, colours[roles]
    count = flat.shape[0] // tile
    tiles = flat.reshape(count, tile, count, tile, 3).mean(axis=(1, 3)) + rng.normal(0, 9, (count, count, 1))
    pixels = tiles.repeat(tile, axis=0).repeat(tile, axis=1)
    x, y = _grid()
    gap = (x % tile < 2) | (y % tile < 2)
    return np.where(gap[..., None], colours[LINE] * 0.5 + pixels * 0.5, pixels)


def _watercolor(roles: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    blurred = Image.fromarray(colours[roles].clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(6))
    coarse = Image.fromarray(rng.normal(0, 1, (7, 7)).astype(np.float32))
    blots = np.asarray(coarse.resize((INNER * FINE,) * 2, Image.Resampling.BICUBIC))
    paper = 0.72 * np.asarray(blurred, dtype=np.float32) + 0.28 * 255
    return paper + 18 * blots[..., None]


def _outline(roles: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    edge = np.zeros(roles.shape, dtype=bool)
    edge[:-1] |= roles[:-1] != roles[1:]
    edge[:, :-1] |= roles[:, :-1] != roles[:, 1:]
    thick = Image.fromarray(edge).convert("L").filter(ImageFilter.MaxFilter(5))
    paper = np.broadcast_to(colours[SKY] * 0.85 + colours[ACCENT] * 0.15, (*roles.shape, 3))
    return np.where(np.asarray(thick)[..., None] > 0, colours[LINE] * 0.5 + colours[BODY] * 0.5, paper)


_TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "flat": _flat, "hatched": _hatched, "dotted": _dotted,
    "mosaic": _mosaic, "watercolor": _watercolor, "outline": _outline,
}  # fmt: skip
