"""A reference's colours, with nothing installed but the checkpoint: against AdaIN on the WebUI's latents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from live_case import seen_in
from live_kind import kind
from live_webui import SETTINGS
from live_world import as_base64, picture
from PIL import Image, ImageOps
from torch import Tensor

PICTURE = picture(0, (96, 64))
SHARE = 0.7
STEPS = 4  # two of them are calibrated
LAYOUTS: dict[str, dict[str, Any]] = {
    "a batch": {"batch_size": 2, "prompt": "a cat AND a dog"},
    "DDIM, whose steps end in noise": {"sampler_name": "DDIM", "steps": 6},
    "hires": {"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.9, **kind().hires},
}


def unit(**fields: Any) -> dict[str, Any]:
    return {"method": "palette", "image": as_base64(PICTURE), "palette": SHARE, **fields}


@contextmanager
def calibrated() -> Iterator[None]:
    """What the denoised latent of each step is, AdaIN included, while the extension is off."""
    from modules.sd_samplers_cfg_denoiser import CFGDenoiser

    own = CFGDenoiser.forward

    def forward(self: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        progress = self.step / self.total_steps
        made = own(self, x, sigma, *args, **kwargs)
        if not 0.5 <= progress < 0.8:
            return made
        if not is_noise(self):
            return moved(made)
        alpha = self.inner_model.inner_model.alphas_cumprod[sigma.long()].view(-1, 1, 1, 1)
        clean = (x - (1 - alpha).sqrt() * made) / alpha.sqrt()
        return (x - alpha.sqrt() * moved(clean)) / (1 - alpha).sqrt()

    with mock.patch.object(CFGDenoiser, "forward", forward):
        yield


def is_noise(denoiser: Any) -> bool:
    return type(denoiser).__name__ == "CFGDenoiserTimesteps"


def moved(x: Tensor) -> Tensor:
    like = encoded(x.shape[-2:]).to(x)
    flat = (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)
    return x + SHARE * (flat * like.std((2, 3), keepdim=True) + like.mean((2, 3), keepdim=True) - x)


def encoded(size: Any) -> Tensor:
    from modules import sd_samplers_common

    pixels = np.asarray(ImageOps.fit(PICTURE, (size[1] * 8, size[0] * 8), Image.Resampling.LANCZOS)) / 255.0
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        return sd_samplers_common.images_tensor_to_samples(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_formula_and_leaves_nothing(webui: Any, layout: str) -> None:
    settings = {"steps": STEPS, **LAYOUTS[layout]}
    plain = webui.txt2img(**settings)
    coloured = webui.txt2img(unit(), **settings)
    assert coloured.status == 200, coloured.answer
    assert webui.txt2img(**settings).same_as(plain)
    assert webui.txt2img(unit(palette=0), **settings).same_as(plain)
    with calibrated():
        expected = webui.txt2img(**settings)
    seen_in(plain, coloured, expected)
    assert not webui.hooks()


def test_it_goes_with_every_method_that_has_a_picture(webui: Any) -> None:
    methods = ["adapter"] if kind().is_fork else ["adapter", "swapped", "shared"]
    for method in methods:
        styled, both = (webui.txt2img(unit(method=method, palette=share), steps=STEPS) for share in (0, SHARE))
        assert both.status == 200, both.answer
        assert not both.same_as(styled)
        assert f"palette: {SHARE}" in both.infotext


def test_a_job_of_one_step_is_refused(webui: Any) -> None:
    job = webui.txt2img(unit(), steps=1)
    assert (job.status, job.answer["detail"]["field"]) == (422, "palette")
    assert SETTINGS["steps"] > 1
