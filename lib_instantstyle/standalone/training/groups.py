"""Groups of blocks. One group is drawn for each step, and only its layers act and learn in that step.

With a single group this is the official recipe on chosen blocks. With several it is dropout of blocks: the adapter
learns to act through each group alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...units.blocks import Layer, layers_at
from ...units.errors import InstantStyleError
from ...units.routing import CUSTOM, PRESETS
from .draws import generator, uniform


@dataclass(frozen=True)
class Group:
    """Some layers, and the share of the steps in which they act."""

    name: str
    layers: tuple[Layer, ...]  # in checkpoint order
    share: float  # all shares sum to 1


def read_groups(specs: Sequence[str], layers: Sequence[Layer]) -> tuple[Group, ...]:
    """Groups written as "style", "layout=0.2" or "up_blocks.0.attentions.1+mid_block=0.5".

    Raises InstantStyleError for a share that is no positive number, UnknownBlockError for an address of nothing.
    """
    if not specs:
        raise InstantStyleError("At least one group of blocks must be trained; none was given. Use --blocks style.")
    parsed = [_parsed(spec) for spec in specs]
    total = sum(share for _, share in parsed)
    return tuple(Group(name, _layers(name, layers), share / total) for name, share in parsed)


def trained_layers(groups: Sequence[Group]) -> tuple[Layer, ...]:
    """The layers of all groups together, each once, in checkpoint order."""
    return tuple(sorted({layer for group in groups for layer in group.layers}, key=lambda layer: layer.index))


def drawn_group(groups: Sequence[Group], seed: int, step: int) -> Group:
    """The group of a step, the same in all processes."""
    at = uniform(generator(seed, "group", step))
    for group in groups:
        at -= group.share
        if at < 0:
            return group
    return groups[-1]


def _parsed(spec: str) -> tuple[str, float]:
    name, marked, share = spec.partition("=")
    try:
        value = float(share) if marked else 1.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InstantStyleError(f"A share must be a number above 0, like style=0.4; got {spec!r}.", "blocks")
    return name.strip(), value


def _layers(name: str, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    addresses = [address for word in name.split("+") for address in _addresses(word.strip())]
    found = {layer for address in addresses for layer in layers_at(address, layers)}
    return tuple(sorted(found, key=lambda layer: layer.index))


def _addresses(word: str) -> tuple[str, ...]:
    preset = PRESETS.get(word)
    return (word,) if preset is None or word == CUSTOM else (*preset.weighted, *preset.layout_weighted)
