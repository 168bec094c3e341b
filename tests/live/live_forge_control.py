"""Units of the ControlNet that Forge and its kin bring along, without published weights; and its IP-Adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from live_world import ENCODER_PROJECTED, as_base64, picture
from tiny_shapes import CONTEXT_WIDTH
from torch import Tensor

SDXL_CONTEXT = 2048
GUIDE = as_base64(picture(3, (128, 128)))


def unit(model: str, **others: Any) -> dict[str, Any]:
    """One with the model whose file has that name."""
    from lib_controlnet import global_state

    full = next(name for name in global_state.get_all_controlnet_names() if name.partition(" [")[0] == model)
    chosen = {"enabled": True, "model": full, "image": GUIDE, "weight": 0.5, "save_detected_map": False}
    return {**chosen, **others}


def canny(model: str) -> dict[str, Any]:
    return unit(model, module="canny", processor_res=128, threshold_a=20, threshold_b=60)


def image_prompt() -> dict[str, Any]:
    return unit("tiny-base", module="CLIP-ViT-bigG (IPAdapter)", weight=0.7)


def controlnet(*units: dict[str, Any]) -> dict[str, Any]:
    """Settings of a job with these units."""
    return {"scripts": {"ControlNet": {"args": list(units)}}}


@contextmanager
def tiny_image_prompts() -> Iterator[None]:
    """Their IP-Adapter knows SDXL by its context width; it is told the tiny checkpoint's. In the image encoder's place
    stands one that always answers the same."""
    from lib_ipadapter.IPAdapterPlus import IPAdapterApply

    apply = getattr(IPAdapterApply.apply_ipadapter, "__func__", IPAdapterApply.apply_ipadapter)
    code: CodeType = apply.__code__
    assert SDXL_CONTEXT in code.co_consts
    constants = tuple(CONTEXT_WIDTH if one == SDXL_CONTEXT else one for one in code.co_consts)
    preprocessor = type(_preprocessor(image_prompt()["module"]))
    apply.__code__ = code.replace(co_consts=constants)
    try:
        encoder = SimpleNamespace(encode_image=_encode)
        with mock.patch.object(preprocessor, "load_clipvision", return_value=encoder):
            yield
    finally:
        apply.__code__ = code


def _preprocessor(name: str) -> Any:
    from modules_forge.shared import supported_preprocessors

    return supported_preprocessors[name]


def _encode(image: Tensor) -> SimpleNamespace:
    embeds = torch.randn(1, ENCODER_PROJECTED, generator=torch.Generator().manual_seed(0))
    return SimpleNamespace(image_embeds=embeds)
