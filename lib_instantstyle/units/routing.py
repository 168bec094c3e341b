"""Presets, and the plan they make: which layers see the reference, each with what scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from .blocks import SDXL_BLOCKS, Layer, layers_at
from .errors import UnknownBlockError

STYLE_BLOCK = "up_blocks.0.attentions.1"
LAYOUT_BLOCK = "down_blocks.2.attentions.1"
CUSTOM = "custom"


@dataclass(frozen=True)
class Preset:
    """A named routing. Blocks in `weighted` get the unit's weight, those in `layout_weighted` its layout weight."""

    name: str
    label: str
    source: str
    weighted: tuple[str, ...] = ()
    layout_weighted: tuple[str, ...] = ()


_OFFICIAL = "InstantStyle@6b40588 infer_style.py"

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("style", "Style", f"{_OFFICIAL}:22", (STYLE_BLOCK,)),
        Preset("layout", "Layout", "arXiv:2404.02733 §3.3.2", (LAYOUT_BLOCK,)),
        Preset("style_and_layout", "Style + Layout", f"{_OFFICIAL}:23", (STYLE_BLOCK,), (LAYOUT_BLOCK,)),
        Preset("original", "Original IP-Adapter", f"{_OFFICIAL}:21", SDXL_BLOCKS),
        Preset(CUSTOM, "Custom blocks", "scales chosen by the user"),
    )
}


class Routed(Protocol):
    """What routing reads of a unit."""

    @property
    def preset(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def layout_weight(self) -> float | None: ...

    @property
    def blocks(self) -> tuple[tuple[str, float], ...] | None: ...


def route(unit: Routed, layers: Sequence[Layer]) -> dict[Layer, float]:
    """The plan of one unit: layer → scale, zeros included. Raises UnknownBlockError for an unknown address."""
    if unit.preset == CUSTOM:
        scales = _specific(dict(unit.blocks or ()), layers)
        return {layer: scale * unit.weight for layer, scale in scales.items()}
    preset = PRESETS[unit.preset]
    layout = unit.weight if unit.layout_weight is None else unit.layout_weight
    weights = {**dict.fromkeys(preset.weighted, unit.weight), **dict.fromkeys(preset.layout_weighted, layout)}
    return {layer: weights[layer.block] for layer in layers if layer.block in weights}


def _specific(scales: Mapping[str, float], layers: Sequence[Layer]) -> dict[Layer, float]:
    """Spread scales over layers; where addresses overlap, the one that names the fewest layers wins."""
    named = {address: layers_at(address, layers) for address in scales}
    _refuse_double(named)
    broad_first = sorted(named, key=lambda address: -len(named[address]))
    return {layer: scales[address] for address in broad_first for layer in named[address]}


def _refuse_double(named: Mapping[str, Iterable[Layer]]) -> None:
    seen: dict[frozenset[Layer], str] = {}
    for address, layers in named.items():
        twin = seen.setdefault(frozenset(layers), address)
        if twin != address:
            raise UnknownBlockError(f"{twin[:80]!r} and {address[:80]!r} name the same layers. Give one of them.")
