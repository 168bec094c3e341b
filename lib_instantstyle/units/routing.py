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
    """A named routing. Blocks in `weighted` get the unit's weight, those in `layout_weighted` its layout weight.

    In `pushed` blocks the reference is turned round, see `pushes`: by the push weight, in `faintly_pushed` by a tenth.
    """

    name: str
    label: str
    source: str
    weighted: tuple[str, ...] = ()
    layout_weighted: tuple[str, ...] = ()
    pushed: tuple[str, ...] = ()
    faintly_pushed: tuple[str, ...] = ()
    push_weight: float = 0.0  # if the unit gives none

    @property
    def pushes(self) -> bool:
        """Whether it has blocks in which guidance pushes away from the reference."""
        return bool(self.pushed)


IN_ORDER = (*SDXL_BLOCKS[:4], SDXL_BLOCKS[-1], *SDXL_BLOCKS[4:-1])  # as the UNet runs them: the middle in the middle
FAINT = 0.1
_OFFICIAL = "InstantStyle@6b40588 infer_style.py"
_COMFY = "ComfyUI_IPAdapter_plus@9d076a3 IPAdapterPlus.py"
_BUT_LAYOUT = tuple(block for block in SDXL_BLOCKS if block != LAYOUT_BLOCK)
_NEITHER = tuple(block for block in _BUT_LAYOUT if block != STYLE_BLOCK)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("style", "Style", f"{_OFFICIAL}:22", (STYLE_BLOCK,)),
        Preset("layout", "Layout", "arXiv:2404.02733 §3.3.2", (LAYOUT_BLOCK,)),
        Preset("style_and_layout", "Style + Layout", f"{_OFFICIAL}:23", (STYLE_BLOCK,), (LAYOUT_BLOCK,)),
        Preset("strong_style", "Strong style", f"{_COMFY}:311", _BUT_LAYOUT),
        Preset("style_precise", "Precise style", f"{_COMFY}:318", (STYLE_BLOCK,), (), (LAYOUT_BLOCK,), (), 1.0),
        Preset("layout_precise", "Precise layout", f"{_COMFY}:324", (LAYOUT_BLOCK,), (), (STYLE_BLOCK,), _NEITHER, 0.3),
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

    @property
    def push_weight(self) -> float | None: ...


def route(unit: Routed, layers: Sequence[Layer]) -> dict[Layer, float]:
    """The plan of one unit: layer → scale, zeros included. Raises UnknownBlockError for an unknown address."""
    if unit.preset == CUSTOM:
        scales = _specific(dict(unit.blocks or ()), layers)
        return {layer: scale * unit.weight for layer, scale in scales.items()}
    preset = PRESETS[unit.preset]
    layout = unit.weight if unit.layout_weight is None else unit.layout_weight
    weights = {**dict.fromkeys(preset.weighted, unit.weight), **dict.fromkeys(preset.layout_weighted, layout)}
    return {layer: weights[layer.block] for layer in layers if layer.block in weights}


def route_pushes(unit: Routed, layers: Sequence[Layer]) -> dict[Layer, float]:
    """Layer → push weight, where the unit's preset pushes: without zeros, and none at all of a unit of weight 0.

    There conditional rows see nothing of the reference and unconditional rows see it at this scale, so that guidance
    pushes the result away from what the reference says in this layer. At a CFG scale of 1 it has no effect.
    """
    preset = PRESETS[unit.preset]
    push = preset.push_weight if unit.push_weight is None else unit.push_weight
    scales = {**dict.fromkeys(preset.faintly_pushed, FAINT * push), **dict.fromkeys(preset.pushed, push)}
    return {layer: scales[layer.block] for layer in layers if unit.weight and scales.get(layer.block)}


def blocks_by_number(weights: Mapping[int, float]) -> dict[str, float]:
    """Block addresses with scales, from the numbers that ComfyUI and ControlNet give the eleven blocks.

    They count in the order in which the UNet runs: 0 to 3 down, 4 middle, 5 to 10 up. A block without a number gets
    nothing. Raises UnknownBlockError for a number that no block has.
    """
    unknown = [number for number in weights if not 0 <= number < len(IN_ORDER)]
    if unknown:
        raise UnknownBlockError(
            f"SDXL's blocks are numbered from 0 to {len(IN_ORDER) - 1}; there is no block {unknown[0]}."
        )
    return {IN_ORDER[number]: weight for number, weight in weights.items()}


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
            raise UnknownBlockError(f"{twin[:80]!r} and {address[:80]!r} name the same layers. Keep only one of them.")
