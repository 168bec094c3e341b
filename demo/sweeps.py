"""The paper's claims as sweeps: leakage against weight, one block at a time, and how content is taken out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lib_instantstyle.units.blocks import SDXL_BLOCKS
from lib_instantstyle.units.routing import LAYOUT_BLOCK, STYLE_BLOCK

from .modes import COMPARED, ORIGINAL, ORIGINAL_REMOVED, PLAIN, STYLE, STYLE_REMOVED, Mode

WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5)
REMOVAL_SCALES = (0.25, 0.5, 1.0, 1.5)
ROLES = {STYLE_BLOCK: " (style)", LAYOUT_BLOCK: " (layout)"}


SWEEPS = ("none", "weight", "block", "removal", "control", "method")
# Presets with what is set beside them, by the name of what is set.
CONTROLS: dict[str, tuple[Mode, dict[str, dict[str, object]]]] = {
    "style": (
        STYLE,
        {"adain": {"fusion": "adain"}, "precise": {"preset": "style_precise"}, "noise 1": {"negative_noise": 1.0}},
    ),
    "original": (
        ORIGINAL,
        {
            "strong style": {"preset": "strong_style"},
            "precise layout": {"preset": "layout_precise"},
            "adain": {"fusion": "adain"},
            "noise 1": {"negative_noise": 1.0},
            "ease_in": {"curve": "ease_in"},
            "fade_out": {"curve": "fade_out"},
            "kv, 1.5": {"kv_scaling": "kv", "weight": 1.5},
        },
    ),
}


@dataclass(frozen=True)
class Point:
    """One way of using the references, and where it stands."""

    sweep: str
    series: str
    at: str  # the number or name that changes along the series
    mode: Mode


def points() -> Iterator[Point]:
    """All of them, the plain prompt first."""
    yield Point("none", "prompt alone", "", PLAIN)
    yield from _weights()
    yield from _blocks()
    yield from _removal()
    yield from _controls()
    yield from _compared()


def _controls() -> Iterator[Point]:
    for series, (mode, controls) in CONTROLS.items():
        for name, fields in controls.items():
            yield Point("control", series, name, replace(mode, fields={**(mode.fields or {}), **fields}))


def _compared() -> Iterator[Point]:
    for mode in COMPARED:
        yield Point("method", "a weight of the original, or the method", mode.name, mode)


def _weights() -> Iterator[Point]:
    for mode in (ORIGINAL, ORIGINAL_REMOVED, STYLE, STYLE_REMOVED):
        for weight in WEIGHTS:
            weighted = replace(mode, fields={**(mode.fields or {}), "weight": weight})
            yield Point("weight", mode.name, f"{weight:g}", weighted)


def _blocks() -> Iterator[Point]:
    for block in SDXL_BLOCKS:
        fields = {"preset": "custom", "blocks": {block: 1.0}}
        yield Point("block", "one block alone", block + ROLES.get(block, ""), Mode(block, fields))


def _removal() -> Iterator[Point]:
    for method in ("subtract", "project", "auto"):
        for scale in REMOVAL_SCALES:
            fields = {"preset": "original", "content_method": method, "content_scale": scale}
            yield Point("removal", method, f"{scale:g}", Mode(method, fields, removes=True))
