"""modules/sd_samplers*.py: a sampler of Euler's kind, and the denoiser that puts conditions into model calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

MORE_THAN_ONE_CALL = ("Heun",)


class InterruptedException(BaseException):
    """As in sd_samplers_common.py."""


@dataclass(frozen=True)
class SamplerConfig:
    name: str

    def total_steps(self, steps: int) -> int:
        return 2 * steps if self.name in MORE_THAN_ONE_CALL else steps


@dataclass
class CFGDenoiserParams:
    """What `on_cfg_denoiser` is called with."""

    x: Tensor
    image_cond: Any
    sigma: Tensor
    sampling_step: int
    total_sampling_steps: int
    text_cond: Any
    text_uncond: Any
    denoiser: CFGDenoiser


@dataclass
class AfterCFGCallbackParams:
    """What `on_cfg_after_cfg` is called with."""

    x: Tensor
    sampling_step: int
    total_sampling_steps: int


class DictWithShape(dict[str, Tensor]):
    """SDXL's conditioning, as prompt_parser.py builds it anew in every step."""

    @property
    def shape(self) -> torch.Size:
        return self["crossattn"].shape


class CFGDenoiser:
    """One call for each step (sd_samplers_cfg_denoiser.py)."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.p = sampler, sampler.p
        self.step = self.total_steps = 0

    def __call__(self, x: Tensor, sigma: float, cond: list[list[dict[str, Tensor]]], uncond: list[Any]) -> Tensor:
        web = self.p.webui
        if web.state.interrupted or web.state.skipped:
            raise InterruptedException
        apply_refiner(self)
        tensor = stacked([one for conds in cond for one in conds])
        x_in = torch.cat([x[at : at + 1] for at, conds in enumerate(cond) for _ in conds] + [x])
        sigmas = torch.full((len(x_in),), sigma)
        step, steps = web.state.sampling_step, web.state.sampling_steps
        params = CFGDenoiserParams(x_in, None, sigmas, step, steps, tensor, stacked(uncond), self)
        web.callbacks.fire("cfg_denoiser", params)
        skip_uncond = bool(self.step % 2 and sigma < self.p.s_min_uncond)  # "negative guidance minimum sigma"
        out = self._predict(params, skip_uncond, len(x))
        out = self._combined(out, [len(conds) for conds in cond], 1.0 if skip_uncond else self.p.cfg_scale)
        return self.after_cfg(out)

    def after_cfg(self, denoised: Tensor) -> Tensor:
        state = self.p.webui.state
        params = AfterCFGCallbackParams(denoised, state.sampling_step, state.sampling_steps)
        self.p.webui.callbacks.fire("cfg_after_cfg", params)
        self.step += 1
        return params.x

    def _predict(self, params: CFGDenoiserParams, skip_uncond: bool, pictures: int) -> Tensor:
        """All rows, conditional ones first: in one call, or in one for each kind when their lengths differ."""
        cond, uncond, x, sigma = params.text_cond, params.text_uncond, params.x, params.sigma
        batch = self.p.webui.opts.batch_cond_uncond
        if skip_uncond:
            out = self._call(x[:-pictures], sigma[:-pictures], cond)
            return torch.cat([out, out[:pictures]])
        if cond.shape[1] == uncond.shape[1] and batch:
            return self._call(x, sigma, catenated(cond, uncond))
        parts = [(x[:-pictures], sigma[:-pictures], cond), (x[-pictures:], sigma[-pictures:], uncond)]
        return torch.cat([self._call(*part) for part in parts])

    def _call(self, x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        return self.p.webui.sd_model.model(x, sigma, {**cond, "c_concat": [None]})

    @staticmethod
    def _combined(out: Tensor, repeats: list[int], scale: float) -> Tensor:
        uncond = out[-len(repeats) :]
        parts = out[: -len(repeats)].split(repeats)
        return torch.stack([low + scale * (rows - low).sum(0) for low, rows in zip(uncond, parts)])


def apply_refiner(denoiser: CFGDenoiser) -> None:
    """Swap the checkpoint where the job says so (sd_samplers_common.py)."""
    swap = denoiser.p.refiner
    if swap is not None and denoiser.step / denoiser.total_steps >= swap[0]:
        denoiser.p.webui.sd_model = swap[1]


def images_tensor_to_samples(image: Tensor, approximation: int | None = None, model: Any = None) -> Tensor:
    """Four random mixtures of the pixels, at an eighth of the size, and a sample of the VAE's."""
    mixture = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    latent = torch.einsum("oc,bchw->bohw", mixture, avg_pool2d(image, 8) * 2 - 1)
    return latent + 0.01 * torch.randn_like(latent)


def stacked(conds: list[dict[str, Tensor]]) -> DictWithShape:
    """One conditioning for all rows; shorter ones are padded with their last token."""
    length = max(cond["crossattn"].shape[0] for cond in conds)
    padded = [torch.cat([t, t[-1:].expand(length - len(t), -1)]) for t in (cond["crossattn"] for cond in conds)]
    return DictWithShape(crossattn=torch.stack(padded), vector=torch.stack([cond["vector"] for cond in conds]))


def catenated(cond: Any, uncond: Any) -> DictWithShape:
    """Every entry of both, row after row; one that only a single side has is an error, as there."""
    return DictWithShape({key: torch.cat([value, uncond[key]]) for key, value in cond.items()})


class Sampler:
    """`p.sampler`."""

    def __init__(self, name: str, p: Any) -> None:
        self.config, self.p = SamplerConfig(name), p
        self.model_wrap_cfg = CFGDenoiser(self)

    def sample(self, p: Any, x: Tensor, conditioning: Any, unconditional_conditioning: Any) -> Tensor:
        return self._launch(p.steps, x, conditioning, unconditional_conditioning)

    def sample_img2img(
        self, p: Any, x: Tensor, noise: Tensor, conditioning: Any, unconditional_conditioning: Any, steps: int = 0
    ) -> Tensor:
        t_enc = setup_img2img_steps(p, steps or None)[1]
        return self._launch(t_enc + 1, x + p.denoising_strength * noise, conditioning, unconditional_conditioning)

    def _launch(self, steps: int, x: Tensor, cond: Any, uncond: Any) -> Tensor:
        denoiser, state = self.model_wrap_cfg, self.p.webui.state
        denoiser.step, denoiser.total_steps = 0, self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        calls = denoiser.total_steps - (denoiser.total_steps > steps)  # Heun's last step is a single call
        try:
            for call in range(calls):
                state.sampling_step = call * steps // denoiser.total_steps
                x = x + 0.1 * (denoiser(x, 1 - call / calls, cond, uncond) - x)
        except InterruptedException:
            pass
        return x


def setup_img2img_steps(p: Any, steps: int | None = None) -> tuple[int, int]:
    """Steps asked of the sampler and the last one that is made, counted from 0 (sd_samplers_common.py)."""
    if p.webui.opts.img2img_fix_steps or steps is not None:
        requested = steps or p.steps
        return (int(requested / min(p.denoising_strength, 0.999)) if p.denoising_strength > 0 else 0), requested - 1
    return p.steps, int(min(p.denoising_strength, 0.999) * p.steps)


def find_sampler_config(name: str) -> SamplerConfig | None:
    return SamplerConfig(name) if name in ("Euler", *MORE_THAN_ONE_CALL) else None
