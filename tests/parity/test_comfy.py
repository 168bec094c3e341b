"""Presets, combined pictures and scaled keys against ComfyUI_IPAdapter_plus's arithmetic, retyped from its source.

IPAdapterPlus.py@9d076a3:300-340 and 420-447, CrossAttentionPatch.py@9d076a3:100-207. Layer by layer, on random queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.style.sums import Stacks, style_sum
from lib_instantstyle.units.blocks import SDXL_BLOCKS, Layer, attention_layers
from lib_instantstyle.units.unit import StyleUnit

from ..by_hand import World
from ..tiny import TinyHost, picture, sdxl_unet

ROWS, SEEDS = (False, True), (0, 1, 2)
HEADS, SEQUENCE = 2, 5
CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # float32
# The blocks as that project counts them: transformer_index, in the order in which the UNet runs.
INDEX = {block: index for index, block in enumerate((*SDXL_BLOCKS[:4], SDXL_BLOCKS[10], *SDXL_BLOCKS[4:10]))}


def weights(kind: str, weight: float, boost: float) -> dict[int, float]:
    """Of each weight type by its name there; `boost` is style_boost or composition_boost."""
    return {
        "style transfer": {6: weight},
        "composition": {3: weight},
        "style and composition": {3: boost, 6: weight},
        "strong style transfer": dict.fromkeys((0, 1, 2, 4, 5, 6, 7, 8, 9, 10), weight),
        "style transfer precise": {3: boost, 6: weight},
        "composition precise": {**dict.fromkeys(range(11), boost * 0.1), 3: weight, 6: boost},
    }[kind]


def seen(kind: str, index: int, cond: Tensor, uncond: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that conditional and unconditional rows see in a layer."""
    turned = {"style transfer precise": index == 3, "composition precise": index != 3}
    return (torch.zeros_like(cond), cond) if turned.get(kind) else (cond, uncond)


def scaled(how: str, k: Tensor, v: Tensor, weight: float) -> tuple[Tensor, Tensor, float]:
    """Keys, values, and what the attention's result is multiplied by."""
    if how == "V only":
        return k, v, weight
    if how == "K+V":
        return k * weight, v * weight, 1.0
    weight = weight * (k.shape[-1] / 1280.0)
    if how == "K+V w/ C penalty":
        return k * weight, v * weight, 1.0
    mean = v.mean(-2, keepdim=True)
    return k * weight, (v - mean) + mean * weight, 1.0


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(seq, width), (tokens, width), (tokens, width) → (seq, width), head by head."""
    parts = []
    for one in zip(*(x.chunk(HEADS, -1) for x in (q, k, v))):
        parts.append(torch.softmax(one[0] @ one[1].T / one[0].shape[-1] ** 0.5, -1) @ one[2])
    return torch.cat(parts, -1)


def published(
    world: World, layer: Layer, tokens: tuple[Tensor, Tensor], query: Tensor, asked: dict[str, Any]
) -> Tensor:
    """out_ip (2, seq, width): the unconditional row, then the conditional one; zeros where the layer has no weight."""
    index, tensors = INDEX[layer.block], world.adapters["base"]
    table = weights(asked["kind"], asked["weight"], asked["boost"])
    if not table.get(index):
        return torch.zeros_like(query)
    cond, uncond = seen(asked["kind"], index, *tokens)
    rows = []
    for q, of_row in zip(query, (uncond, cond)):
        k, v = (of_row @ tensors[f"ip_adapter.{2 * layer.index + 1}.to_{one}_ip.weight"].T for one in "kv")
        k, v, after = scaled(asked["scaling"], k, v, table[index])
        rows.append(after * attention(q, k, v))
    return torch.stack(rows)


def ours(session: StyleSession, unit: StyleUnit, queries: dict[Layer, Tensor]) -> dict[Layer, Tensor]:
    """What is added to nothing in each layer, at the queries."""
    session.attach(session.plan([unit]))
    layers = {module: layer for layer, module in attention_layers(session.host.unet()).items()}
    found = {layer: torch.zeros_like(query) for layer, query in queries.items()}
    for one in session._layers:
        query = queries[layers[one.attn2]]
        added = style_sum(one.units, ROWS, (1.0,), None, Stacks(HEADS), query)
        found[layers[one.attn2]] = added.add_to(torch.zeros_like(query), query)
    return found


PRESETS = {
    "style": "style transfer",
    "layout": "composition",
    "style_and_layout": "style and composition",
    "strong_style": "strong style transfer",
    "style_precise": "style transfer precise",
    "layout_precise": "composition precise",
}
SCALINGS = {"v": "V only", "kv": "K+V", "kv_penalty": "K+V w/ C penalty", "k_mean_v": "K+mean(V) w/ C penalty"}
COMBININGS = {
    "concat": lambda e: e,
    "average": lambda e: torch.mean(e, dim=0).unsqueeze(0),
    "norm_average": lambda e: torch.mean(e / torch.norm(e, dim=0, keepdim=True), dim=0).unsqueeze(0),
}


@pytest.fixture(scope="module")
def by_hand(world: Path) -> World:
    return World(world)


@pytest.fixture(scope="module")
def session(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StyleSession]:
    """One for all: nothing is drawn with it."""
    made = StyleSession(TinyHost(sdxl_unet(), world, tmp_path_factory.mktemp("cache")))
    yield made
    made.detach()


@torch.no_grad()
def expect_the_same(session: StyleSession, world: World, fields: dict[str, Any], asked: dict[str, Any]) -> None:
    made = torch.Generator().manual_seed(3)
    modules = attention_layers(session.host.unet())
    queries = {x: torch.randn(2, SEQUENCE, module.to_q.out_features, generator=made) for x, module in modules.items()}
    unit = StyleUnit(image=tuple(map(picture, SEEDS)), adapter="base", **fields)
    embeds = COMBININGS[unit.combine](torch.cat([world.image_embeds(seed) for seed in SEEDS]))
    cond = world.tokens(embeds).flatten(0, 1)
    uncond = world.tokens(torch.zeros_like(embeds)).flatten(0, 1)
    for layer, found in ours(session, unit, queries).items():
        torch.testing.assert_close(found, published(world, layer, (cond, uncond), queries[layer], asked), **CLOSE)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_and_scalings_equal_the_published_arithmetic(
    session: StyleSession, by_hand: World, preset: str, scaling: str
) -> None:
    fields: dict[str, Any] = {"preset": preset, "weight": 1.3, "kv_scaling": scaling}
    if preset == "style_and_layout":
        fields["layout_weight"] = 0.6
    if preset.endswith("_precise"):
        fields["push_weight"] = 0.6
    asked = {"kind": PRESETS[preset], "weight": 1.3, "boost": 0.6, "scaling": SCALINGS[scaling]}
    expect_the_same(session, by_hand, fields, asked)


@pytest.mark.parametrize("combine", COMBININGS)
def test_combined_pictures_equal_the_published_arithmetic(session: StyleSession, by_hand: World, combine: str) -> None:
    asked = {"kind": "style transfer", "weight": 0.9, "boost": 0.0, "scaling": "V only"}
    expect_the_same(session, by_hand, {"weight": 0.9, "combine": combine}, asked)


def test_block_numbers_name_the_blocks_they_name_there(session: StyleSession, by_hand: World) -> None:
    """As layer_weights is read there: `0:1, 6:1.2`, each times the weight."""
    blocks = StyleUnit.from_dict({"image": "aaaa", "preset": "custom", "blocks": "0:1, 4:0.5, 6:1.2"}).blocks
    assert {INDEX[block]: scale for block, scale in dict(blocks or ()).items()} == {0: 1.0, 4: 0.5, 6: 1.2}
