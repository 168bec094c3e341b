"""Units of the ControlNet extension that need no published weights, and its inner workings as tests reach them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from live_world import ENCODER_PROJECTED, as_base64, picture

GUIDE = as_base64(picture(3, (96, 64)))
REFERENCE = {
    "enabled": True,
    "module": "reference_only",
    "model": "None",
    "image": GUIDE,
    "processor_res": 64,
    "threshold_a": 0.5,
}
ADAPTER = {  # a T2I-Adapter on a canny map
    "enabled": True,
    "module": "canny",
    "model": "t2i-adapter_xl_canny_tiny",
    "image": GUIDE,
    "processor_res": 64,
    "threshold_a": 20,
    "threshold_b": 60,
}


def image_prompt(seed: int = 0) -> dict[str, Any]:
    """A unit of ControlNet's own IP-Adapter, given an embedding as it would get one from its image encoder."""
    buffer = io.BytesIO()
    embeds = torch.randn(1, ENCODER_PROJECTED, generator=torch.Generator().manual_seed(seed))
    torch.save({"image_embeds": embeds}, buffer)
    given = [base64.b64encode(buffer.getvalue()).decode()]
    chosen = {"module": "ip-adapter_clip_sdxl", "model": "tiny-base", "ipadapter_input": given}
    return {"enabled": True, "weight": 0.7, **chosen}


def controlnet(*units: dict[str, Any]) -> dict[str, Any]:
    """Settings of a job with these units."""
    return {"scripts": {"ControlNet": {"args": list(units)}}}


@contextmanager
def adapters_taken_for_sdxl() -> Iterator[None]:
    """ControlNet knows an SDXL adapter by its context width of 2048, which the tiny checkpoint has not."""
    from scripts.ipadapter.ipadapter_model import IPAdapterModel

    load = IPAdapterModel.load

    def load_as_sdxl(state_dict: dict[str, Any], name: str) -> Any:
        model = load(state_dict, name)
        model.is_sdxl = True
        return model

    with mock.patch.object(IPAdapterModel, "load", staticmethod(load_as_sdxl)):
        yield


def controlnet_scripts() -> list[Any]:
    """ControlNet's script of each tab."""
    from modules import scripts

    runners = (scripts.scripts_txt2img, scripts.scripts_img2img)
    return [one for runner in runners for one in runner.alwayson_scripts if one.title() == "ControlNet"]


@contextmanager
def broken(*methods: str) -> Iterator[None]:
    """ControlNet raises in these methods of its script."""
    with ExitStack() as stack:
        for script in controlnet_scripts():
            for method in methods:
                fault = RuntimeError(f"ControlNet is broken in {method}")
                stack.enter_context(mock.patch.object(type(script), method, mock.Mock(side_effect=fault)))
                stack.callback(_forget_order)
        _forget_order()
        yield


def _forget_order() -> None:
    from modules import scripts

    for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
        runner.callback_map.clear()


@contextmanager
def broken_while_sampling() -> Iterator[None]:
    """A reference unit raises in the UNet's first call, from within ControlNet's version of the UNet's forward."""
    from scripts.hook import UnetHook

    fault = mock.Mock(side_effect=RuntimeError("ControlNet is broken while sampling"))
    with mock.patch.object(UnetHook, "call_vae_using_process", fault):
        yield
