"""A whole job against diffusers' own IP-Adapter: same weights, same pictures, same output.

Ours: files on disk → StyleSession.plan → attach → UNet. Theirs: transformers' encoder and image processor,
`_load_ip_adapter_weights` and `set_ip_adapter_scale` on a UNet of the same weights.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.loaders import IPAdapterMixin
from safetensors.torch import load_file
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.unit import StyleUnit

from ..tiny import TinyHost, base_adapter, picture, save_adapter, sdxl_unet, unet_inputs, vision_model
from ..tiny.clip import POOLED, image_processor

ROWS = (False, False, True, True)  # two pictures with guidance: uncond, uncond, cond, cond
TOLERANCE = 1e-5  # float32, outputs of size one: the same sums in another order

# our fields, and diffusers' scale config of the same meaning
ROUTES: list[tuple[dict[str, Any], Any]] = [
    ({"preset": "style", "weight": 0.9}, {"up": {"block_0": [0.0, 0.9, 0.0]}}),
    ({"preset": "layout", "weight": 1.2}, {"down": {"block_2": [0.0, 1.2]}}),
    (
        {"preset": "style_and_layout", "weight": 0.8, "layout_weight": 0.3},
        {"up": {"block_0": [0.0, 0.8, 0.0]}, "down": {"block_2": [0.0, 0.3]}},
    ),
    ({"preset": "original", "weight": 0.6}, 0.6),
    ({"preset": "original", "weight": -0.5}, -0.5),
    (
        {
            "preset": "custom",
            "weight": 0.5,
            "blocks": (("mid_block", 2.0), ("up_blocks.1.attentions.2", 1.0), ("input_blocks.4.1", -1.0)),
        },
        {"mid": 1.0, "up": {"block_1": [0.0, 0.0, 0.5]}, "down": {"block_1": [-0.5, 0.0]}},
    ),
]
NAMES = ["style", "layout", "style and layout", "original", "original negative", "custom"]


class Theirs:
    """diffusers' IP-Adapter on the models of a tiny host, fed as its pipelines feed it."""

    def __init__(self, host: TinyHost, adapters: list[str], scales: list[Any]) -> None:
        self.encoder = vision_model()
        self.unet = copy.deepcopy(host.unet())
        files = [load_file(str(host.models / "adapters" / f"{name}.safetensors")) for name in adapters]
        self.unet._load_ip_adapter_weights([nested(tensors) for tensors in files], low_cpu_mem_usage=False)
        pipeline = SimpleNamespace(unet=self.unet, unet_name="unet")
        IPAdapterMixin.set_ip_adapter_scale(pipeline, scales if len(scales) > 1 else scales[0])
        self.adapters = adapters

    def image_embeds(self, adapter: str, seeds: tuple[int, ...]) -> Tensor:
        """(rows, pictures, …): zeros or the encoded zeros for uncond, the pictures for cond."""
        pixels = image_processor(32)(images=[picture(seed) for seed in seeds], return_tensors="pt").pixel_values
        if adapter == "plus":
            cond = self.encoder(pixels, output_hidden_states=True).hidden_states[-2]
            uncond = self.encoder(torch.zeros_like(pixels), output_hidden_states=True).hidden_states[-2]
        else:
            cond = self.encoder(pixels).image_embeds
            uncond = torch.zeros_like(cond)
        return torch.stack([cond if is_cond else uncond for is_cond in ROWS])

    def __call__(self, *seeds: tuple[int, ...]) -> Tensor:
        return self.fed(*(self.image_embeds(adapter, of) for adapter, of in zip(self.adapters, seeds)))

    def fed(self, *image_embeds: Tensor) -> Tensor:
        inputs = unet_inputs(len(ROWS))
        inputs["added_cond_kwargs"]["image_embeds"] = list(image_embeds)
        return self.unet(**inputs).sample


def nested(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts = ("image_proj", "ip_adapter")
    return {part: {k[len(part) + 1 :]: t for k, t in tensors.items() if k.startswith(part)} for part in parts}


def ours(session: StyleSession, *units: StyleUnit) -> Tensor:
    session.attach(session.plan(units))
    session.call.cond_rows = ROWS
    styled = session.host.unet()(**unet_inputs(len(ROWS))).sample
    session.detach()
    return styled


def unit(adapter: str, seeds: tuple[int, ...] = (0,), **fields: Any) -> StyleUnit:
    return StyleUnit(image=tuple(picture(seed) for seed in seeds), adapter=adapter, **fields)


def expect_parity(found: Tensor, wanted: Tensor, plain: Tensor) -> None:
    assert 0.1 < wanted.std() < 10
    assert (wanted - plain).abs().max() > 0.02  # the style shows, so that agreeing means something
    assert (found - wanted).abs().max() <= TOLERANCE


@pytest.fixture
def plain(host: TinyHost) -> Tensor:
    with torch.no_grad():
        return host.unet()(**unet_inputs(len(ROWS))).sample


@torch.no_grad()
@pytest.mark.parametrize("adapter", ["base", "plus"])
@pytest.mark.parametrize(("fields", "scale"), ROUTES, ids=NAMES)
def test_every_routing_equals_diffusers(
    session: StyleSession, host: TinyHost, plain: Tensor, adapter: str, fields: dict[str, Any], scale: Any
) -> None:
    expect_parity(ours(session, unit(adapter, **fields)), Theirs(host, [adapter], [scale])((0,)), plain)


@torch.no_grad()
@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_two_pictures_in_one_unit_equal_diffusers(
    session: StyleSession, host: TinyHost, plain: Tensor, adapter: str
) -> None:
    found = ours(session, unit(adapter, (1, 2), preset="original", weight=0.7))
    expect_parity(found, Theirs(host, [adapter], [0.7])((1, 2)), plain)


@torch.no_grad()
@pytest.mark.parametrize("adapters", [("base", "other"), ("base", "plus"), ("plus", "base"), ("base", "base")])
def test_two_units_equal_two_adapters_of_diffusers(
    session: StyleSession, host: TinyHost, plain: Tensor, adapters: tuple[str, str]
) -> None:
    (style, style_scale), (both, both_scale) = ROUTES[0], ROUTES[2]
    found = ours(session, unit(adapters[0], (0,), **style), unit(adapters[1], (3,), **both))
    expect_parity(found, Theirs(host, list(adapters), [style_scale, both_scale])((0,), (3,)), plain)


@torch.no_grad()
def test_content_prompt_equals_diffusers_fed_with_the_official_difference(
    session: StyleSession, host: TinyHost, plain: Tensor
) -> None:
    found = ours(session, unit("base", content_prompt="a rabbit", content_scale=0.5, weight=0.9))
    theirs = Theirs(host, ["base"], [ROUTES[0][1]])
    embeds = theirs.image_embeds("base", (0,))
    embeds[2:] -= 0.5 * host.text_embeds("a rabbit")
    expect_parity(found, theirs.fed(embeds), plain)
    assert (found - theirs((0,))).abs().max() > 0.001


@torch.no_grad()
def test_full_depth_with_seventy_layers_equals_diffusers(tmp_path: Path) -> None:
    unet = sdxl_unet((2, 10))
    host = TinyHost(unet, tmp_path, tmp_path / "cache")
    save_adapter(base_adapter(unet, POOLED), tmp_path / "adapters/base.safetensors")
    vision_model().save_pretrained(tmp_path / "encoders", safe_serialization=True)
    plain = unet(**unet_inputs(len(ROWS))).sample
    found = ours(StyleSession(host), unit("base", preset="original"))
    expect_parity(found, Theirs(host, ["base"], [1.0])((0,)), plain)
