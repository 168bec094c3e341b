"""Block names, layer numbers and addresses, against the published block map."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_instantstyle.units.blocks import (
    SD15_BLOCKS,
    SDXL_BLOCKS,
    SDXL_LAYERS,
    attention_layers,
    diffusers_name,
    layers_at,
    ldm_name,
)
from lib_instantstyle.units.errors import IncompatibleModelError, UnknownBlockError

from ..tiny import LdmUnet, sd15_unet, sdxl_unet

# diffusers, ldm, first and last key in an SDXL adapter (InstantStyle@6b40588 attn_blocks.py; the middle comes last)
SDXL_MAP = (
    ("down_blocks.1.attentions.0", "input_blocks.4.1", 1, 3),
    ("down_blocks.1.attentions.1", "input_blocks.5.1", 5, 7),
    ("down_blocks.2.attentions.0", "input_blocks.7.1", 9, 27),
    ("down_blocks.2.attentions.1", "input_blocks.8.1", 29, 47),
    ("up_blocks.0.attentions.0", "output_blocks.0.1", 49, 67),
    ("up_blocks.0.attentions.1", "output_blocks.1.1", 69, 87),
    ("up_blocks.0.attentions.2", "output_blocks.2.1", 89, 107),
    ("up_blocks.1.attentions.0", "output_blocks.3.1", 109, 111),
    ("up_blocks.1.attentions.1", "output_blocks.4.1", 113, 115),
    ("up_blocks.1.attentions.2", "output_blocks.5.1", 117, 119),
    ("mid_block.attentions.0", "middle_block.1", 121, 139),
)
SD15_LDM = (*(f"input_blocks.{n}.1" for n in (1, 2, 4, 5, 7, 8)), *(f"output_blocks.{n}.1" for n in range(3, 12)))


@pytest.mark.parametrize(("block", "ldm", "first", "last"), SDXL_MAP)
def test_block_has_both_names_and_its_keys(block: str, ldm: str, first: int, last: int) -> None:
    keys = [2 * layer.index + 1 for layer in SDXL_LAYERS if layer.block == block]
    assert keys == list(range(first, last + 1, 2))
    assert (ldm_name(block), diffusers_name(ldm), diffusers_name(block)) == (ldm, block, block)
    assert layers_at(ldm, SDXL_LAYERS) == layers_at(block, SDXL_LAYERS)


def test_sdxl_has_eleven_blocks_and_seventy_layers() -> None:
    assert (len(SDXL_BLOCKS), len(SDXL_LAYERS)) == (11, 70)
    assert [layer.index for layer in SDXL_LAYERS] == list(range(70))


def test_sd15_names_translate_both_ways() -> None:
    assert [ldm_name(block) for block in SD15_BLOCKS] == [*SD15_LDM, "middle_block.1"]
    assert [diffusers_name(ldm_name(block)) for block in SD15_BLOCKS] == list(SD15_BLOCKS)


def test_live_layers_are_numbered_as_diffusers_numbers_adapter_keys() -> None:
    unet = sdxl_unet((2, 10))
    names = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    found = attention_layers(unet)
    assert [layer.names[0] for layer in found] == names
    assert tuple(found) == SDXL_LAYERS
    assert all(module is unet.get_submodule(layer.names[0]) for layer, module in found.items())


def test_live_layers_of_an_ldm_unet_have_the_same_numbers() -> None:
    unet = LdmUnet((2, 10))
    found = attention_layers(unet)
    assert tuple(found) == SDXL_LAYERS
    assert all(module is unet.get_submodule(layer.names[1]) for layer, module in found.items())


def test_shallow_unet_of_the_same_layout_is_numbered_by_its_own_depths() -> None:
    assert tuple(attention_layers(sdxl_unet((1, 2)))) == tuple(attention_layers(LdmUnet((1, 2))))


def test_sd15_unet_is_refused_by_name() -> None:
    with pytest.raises(IncompatibleModelError, match=r"SD 1\.5"):
        attention_layers(sd15_unet())


def test_other_layout_is_refused_with_what_is_missing_and_what_is_too_much() -> None:
    unet = LdmUnet()
    unet.middle_block = nn.ModuleList()
    unet.input_blocks[1].append(unet.input_blocks[4][1])
    with pytest.raises(IncompatibleModelError, match=r"mid_block\.attentions\.0.*down_blocks\.0\.attentions\.0"):
        attention_layers(unet)


def test_module_without_cross_attention_is_refused() -> None:
    with pytest.raises(IncompatibleModelError, match="lacks the cross-attention blocks"):
        attention_layers(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("address", "count"),
    [
        ("up_blocks", 36),
        ("output_blocks", 36),
        ("down_blocks", 24),
        ("mid_block", 10),
        ("middle_block", 10),
        ("down_blocks.1", 4),
        ("input_blocks.4", 2),
        ("up_blocks.0.attentions.1", 10),
        (" up_blocks.0.attentions.1 ", 10),
        ("up_blocks.0.attentions.1.transformer_blocks", 10),
        ("up_blocks.0.attentions.1.transformer_blocks.3", 1),
        ("output_blocks.1.1.transformer_blocks.3.attn2", 1),
    ],
)
def test_address_names_the_layers_below_it(address: str, count: int) -> None:
    assert len(layers_at(address, SDXL_LAYERS)) == count


def test_addresses_are_whole_segments() -> None:
    assert {layer.depth for layer in layers_at("mid_block.attentions.0.transformer_blocks.1", SDXL_LAYERS)} == {1}


@pytest.mark.parametrize(
    "address",
    ["up_block", "up_blocks.3", "output_blocks.1.1.transformer_blocks.10", "6", "", ".", "attn2", "up_blocks."],
)
def test_unknown_address_is_refused_with_the_blocks_in_both_notations(address: str) -> None:
    with pytest.raises(UnknownBlockError) as caught:
        layers_at(address, SDXL_LAYERS)
    assert repr(address) in caught.value.message
    assert all(f"{block} (= {ldm})" in caught.value.message for block, ldm, *_ in SDXL_MAP)
