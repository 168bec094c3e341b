"""Presets and custom blocks: which layer gets which scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from lib_instantstyle.units.blocks import SDXL_BLOCKS, SDXL_LAYERS, Layer
from lib_instantstyle.units.errors import UnknownBlockError
from lib_instantstyle.units.routing import PRESETS, route
from lib_instantstyle.units.unit import StyleUnit

STYLE_KEYS, LAYOUT_KEYS = range(69, 88, 2), range(29, 48, 2)


def routed(**fields: object) -> dict[Layer, float]:
    return route(StyleUnit(**fields), SDXL_LAYERS)


def by_key(scales: Mapping[Layer, float]) -> dict[int, float]:
    return {2 * layer.index + 1: scale for layer, scale in scales.items()}


def custom(weight: float = 1.0, **blocks: float) -> dict[Layer, float]:
    named = {address.replace("__", "."): scale for address, scale in blocks.items()}
    return routed(preset="custom", weight=weight, blocks=tuple(named.items()))


def test_style_is_the_published_style_block() -> None:
    assert by_key(routed(preset="style", weight=0.8)) == dict.fromkeys(STYLE_KEYS, 0.8)


def test_layout_is_the_published_layout_block_and_takes_the_weight() -> None:
    assert by_key(routed(preset="layout", weight=0.8)) == dict.fromkeys(LAYOUT_KEYS, 0.8)


def test_style_and_layout_are_weighted_apart() -> None:
    scales = by_key(routed(preset="style_and_layout", weight=0.8, layout_weight=0.3))
    assert scales == {**dict.fromkeys(STYLE_KEYS, 0.8), **dict.fromkeys(LAYOUT_KEYS, 0.3)}


def test_layout_follows_the_weight_when_it_has_none_of_its_own() -> None:
    assert set(routed(preset="style_and_layout", weight=0.8).values()) == {0.8}
    assert set(routed(preset="style_and_layout", weight=0.8, layout_weight=0.0).values()) == {0.8, 0.0}


def test_original_is_every_layer() -> None:
    assert by_key(routed(preset="original", weight=0.6)) == dict.fromkeys(range(1, 140, 2), 0.6)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "custom"])
def test_weight_zero_routes_zeros_and_negative_weight_is_kept(preset: str) -> None:
    assert set(routed(preset=preset, weight=0.0).values()) == {0.0}
    assert set(routed(preset=preset, weight=-0.5).values()) == {-0.5}


def test_custom_scales_are_multiplied_by_the_weight() -> None:
    assert set(custom(0.5, mid_block=0.8).values()) == {0.4}


def test_custom_takes_both_notations_at_once() -> None:
    scales = custom(mid_block=0.5, output_blocks__1__1=2.0)
    assert Counter(scales.values()) == {0.5: 10, 2.0: 10}
    assert {layer.block for layer, scale in scales.items() if scale == 2.0} == {"up_blocks.0.attentions.1"}


@pytest.mark.parametrize("turned", [False, True])
def test_the_most_specific_address_wins_whatever_the_order(turned: bool) -> None:
    blocks = [
        ("up_blocks", 1.0),
        ("output_blocks.1.1", 0.5),
        ("up_blocks.0.attentions.1.transformer_blocks.3", 0.0),
    ]
    scales = routed(preset="custom", blocks=tuple(reversed(blocks) if turned else blocks))
    assert Counter(scales.values()) == {1.0: 26, 0.5: 9, 0.0: 1}
    assert by_key(scales)[75] == 0.0


@pytest.mark.parametrize("twin", ["output_blocks.1.1", " up_blocks.0.attentions.1", "output_blocks.1"])
def test_two_addresses_of_the_same_layers_are_refused(twin: str) -> None:
    with pytest.raises(UnknownBlockError, match="name the same layers"):
        routed(preset="custom", blocks=(("up_blocks.0.attentions.1", 1.0), (twin, 0.5)))


def test_unknown_custom_address_is_refused() -> None:
    with pytest.raises(UnknownBlockError, match=r"'up_blocks\.7'"):
        custom(mid_block=1.0, up_blocks__7=1.0)


def test_every_preset_names_its_source_and_known_blocks() -> None:
    for preset in PRESETS.values():
        assert preset.source
        assert preset.label
        assert {*preset.weighted, *preset.layout_weighted} <= set(SDXL_BLOCKS)
        assert not set(preset.weighted) & set(preset.layout_weighted)
