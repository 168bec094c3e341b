"""Whole pictures against diffusers' own IP-Adapter: `load_ip_adapter` and `set_ip_adapter_scale` on the same pipeline.

What diffusers cannot express, and so nothing here can be held against: docs/standalone.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib_instantstyle.standalone import StandaloneHost
from lib_instantstyle.units.unit import StyleUnit

from ..tiny import base_adapter, picture, plus_adapter, save_adapter, vision_model
from ..tiny.clip import HIDDEN, POOLED, image_processor
from ..tiny.pipelines import SIDE, tiny_controlnet, tiny_pipeline

STEPS = 3
TOLERANCE = 2e-5  # pictures in 0..1, float32: the same sums in another order; 1.3e-6 was seen
DEPTHS = (2, 10)

Scale = Any  # of set_ip_adapter_scale: a number, or a dict of blocks

ROUTES: list[tuple[dict[str, Any], Scale]] = [
    ({"preset": "original", "weight": 0.8}, 0.8),
    ({"preset": "style"}, {"up": {"block_0": [0.0, 1.0, 0.0]}}),
    (
        {"preset": "style_and_layout", "weight": 1.0, "layout_weight": 0.6},
        {"down": {"block_2": [0.0, 0.6]}, "up": {"block_0": [0.0, 1.0, 0.0]}},
    ),
]
NAMES = ["original", "style", "style and layout"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    unet = tiny_pipeline(folder / "tokenizer", DEPTHS).unet
    save_adapter(base_adapter(unet, POOLED), folder / "adapters/base.safetensors")
    save_adapter(plus_adapter(unet, HIDDEN), folder / "adapters/plus.safetensors")
    vision_model().save_pretrained(folder / "encoder", safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> StandaloneHost:
    pipe = tiny_pipeline(folder / "tokenizer", DEPTHS)
    net = tiny_controlnet(pipe.unet)
    return StandaloneHost(pipe, [folder / "adapters"], [folder / "encoder"], controlnet=net, cache=folder / "cache")


@pytest.fixture(scope="module", params=["base", "plus"])
def adapter(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(folder: Path, adapter: str) -> Any:
    """A pipeline of the same weights with diffusers' IP-Adapter, fed by transformers' encoder and preprocessing."""
    pipe = tiny_pipeline(folder / "tokenizer", DEPTHS)
    pipe.register_modules(image_encoder=vision_model(), feature_extractor=image_processor(32))
    pipe.load_ip_adapter(
        str(folder), subfolder="adapters", weight_name=f"{adapter}.safetensors", image_encoder_folder=None
    )
    return pipe


def arguments(**fields: Any) -> dict[str, Any]:
    generators = [torch.Generator().manual_seed(seed) for seed in range(fields.get("num_images_per_prompt", 1))]
    sized = {"width": SIDE, "height": SIDE, "num_inference_steps": STEPS, "output_type": "np"}
    return {"prompt": "a cat on the roof", "negative_prompt": "a red rabbit", "generator": generators} | sized | fields


def expect_parity(found: np.ndarray, wanted: np.ndarray, plain: np.ndarray) -> None:
    assert np.abs(wanted - plain).max() > 0.02  # the style shows, so that agreeing means something
    assert np.abs(found - wanted).max() <= TOLERANCE


@pytest.mark.parametrize(("fields", "scale"), ROUTES, ids=NAMES)
@pytest.mark.parametrize("guidance", [5.0, 1.0], ids=["guided", "unguided"])
def test_pictures_equal_diffusers(
    ours: StandaloneHost, theirs: Any, adapter: str, fields: dict[str, Any], scale: Scale, guidance: float
) -> None:
    given = {"guidance_scale": guidance, "num_images_per_prompt": 2}
    plain = ours.pipe(**arguments(**given)).images
    with ours.styled([StyleUnit(image=(picture(),), adapter=adapter, **fields)]):
        found = ours.pipe(**arguments(**given)).images
    theirs.set_ip_adapter_scale(scale)
    expect_parity(found, theirs(**arguments(**given), ip_adapter_image=picture()).images, plain)


def test_img2img_equals_diffusers(ours: StandaloneHost, theirs: Any, adapter: str) -> None:
    from diffusers import StableDiffusionXLImg2ImgPipeline as Img2Img

    given = {"image": picture(5, (SIDE, SIDE)), "strength": 0.7}
    sized = {key: value for key, value in arguments(**given).items() if key not in ("width", "height")}
    mine = Img2Img(**ours.pipe.components, add_watermarker=False)
    made = lambda pipe, **more: pipe(**{**sized, "generator": torch.Generator().manual_seed(0)}, **more).images  # noqa: E731
    plain = made(mine)
    with ours.styled([StyleUnit(image=(picture(),), adapter=adapter, preset="original")], mine):
        found = made(mine)
    other = Img2Img(**theirs.components, add_watermarker=False)
    other.set_ip_adapter_scale(1.0)
    expect_parity(found, made(other, ip_adapter_image=picture()), plain)


def test_controlnet_equals_diffusers(ours: StandaloneHost, theirs: Any, adapter: str) -> None:
    from diffusers import StableDiffusionXLControlNetPipeline as Controlled

    given = {"image": picture(6, (SIDE, SIDE)), "controlnet_conditioning_scale": 0.8}
    mine = Controlled(**ours.pipe.components, controlnet=ours.controlnet, add_watermarker=False)
    plain = mine(**arguments(**given)).images
    with ours.styled([StyleUnit(image=(picture(),), adapter=adapter, preset="original")], mine):
        found = mine(**arguments(**given)).images
    other = Controlled(**theirs.components, controlnet=ours.controlnet, add_watermarker=False)
    other.set_ip_adapter_scale(1.0)
    expect_parity(found, other(**arguments(**given), ip_adapter_image=picture()).images, plain)
