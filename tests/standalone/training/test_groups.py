"""Which blocks learn, and which of them act in a step."""

from __future__ import annotations

from collections import Counter

import pytest

from lib_instantstyle.standalone.training.groups import drawn_group, read_groups, trained_layers
from lib_instantstyle.units.blocks import SDXL_LAYERS
from lib_instantstyle.units.errors import InstantStyleError
from lib_instantstyle.units.routing import LAYOUT_BLOCK, STYLE_BLOCK


def blocks(*specs: str) -> set[str]:
    return {layer.block for layer in trained_layers(read_groups(specs, SDXL_LAYERS))}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("style", {STYLE_BLOCK}),
        ("style_and_layout", {STYLE_BLOCK, LAYOUT_BLOCK}),
        ("style+layout", {STYLE_BLOCK, LAYOUT_BLOCK}),
        ("output_blocks.1.1", {STYLE_BLOCK}),
        ("middle_block.1 + up_blocks.0.attentions.1", {STYLE_BLOCK, "mid_block.attentions.0"}),
        ("original", {layer.block for layer in SDXL_LAYERS}),
    ],
)
def test_a_group_is_written_in_presets_or_in_either_notation(spec: str, wanted: set[str]) -> None:
    assert blocks(spec) == wanted


def test_a_single_layer_can_be_trained() -> None:
    (group,) = read_groups([f"{STYLE_BLOCK}.transformer_blocks.3"], SDXL_LAYERS)
    assert [(layer.block, layer.depth) for layer in group.layers] == [(STYLE_BLOCK, 3)]


def test_layers_of_several_groups_are_trained_once_each_in_checkpoint_order() -> None:
    layers = trained_layers(read_groups(["style", "original=0.4", "layout"], SDXL_LAYERS))
    assert layers == SDXL_LAYERS


def test_groups_are_drawn_by_their_shares() -> None:
    groups = read_groups(["original=4", "style=4", "layout=2"], SDXL_LAYERS)
    assert [group.share for group in groups] == [0.4, 0.4, 0.2]
    counted = Counter(drawn_group(groups, 0, step).name for step in range(3000))
    assert all(abs(counted[group.name] / 3000 - group.share) < 0.03 for group in groups)


@pytest.mark.parametrize("spec", ["style=0", "style=-1", "style=much", "style=nan", "style=inf", "nowhere", "custom"])
def test_what_is_no_share_or_no_block_is_refused(spec: str) -> None:
    with pytest.raises(InstantStyleError, match=spec.partition("=")[0]):
        read_groups([spec], SDXL_LAYERS)


def test_no_group_is_refused() -> None:
    with pytest.raises(InstantStyleError, match="--blocks"):
        read_groups([], SDXL_LAYERS)
