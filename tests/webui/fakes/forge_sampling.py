"""Forge's sampling: rows of conditions are joined into calls, unconditional ones first (sampling_function.py)."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from .forge_model import compiled
from .sampling import CFGDenoiser, CFGDenoiserParams, InterruptedException, Sampler, apply_refiner, stacked

COND, UNCOND = 0, 1


class ForgeDenoiser(CFGDenoiser):
    def __call__(self, x: Tensor, sigma: float, cond: list[list[dict[str, Tensor]]], uncond: Any) -> Tensor:
        web = self.p.webui
        if web.state.interrupted or web.state.skipped:
            raise InterruptedException
        apply_refiner(self)
        negative, sigmas = uncond and stacked(uncond), torch.full((len(x),), sigma)
        text = stacked([one for conds in cond for one in conds])
        params = CFGDenoiserParams(x, None, sigmas, self.step, self.total_steps, text, negative, self)
        web.callbacks.fire("cfg_denoiser", params)
        return self.after_cfg(self._sampled(params, [len(conds) for conds in cond]))

    def _sampled(self, params: CFGDenoiserParams, parts: list[int]) -> Tensor:
        patcher = self.p.webui.sd_model.forge_objects.unet
        numbers = iter(range(sum(parts)))
        of_pictures = [[next(numbers) for _ in range(count)] for count in parts]
        cond = [compiled(params.text_cond, rows) for rows in zip_longest(*of_pictures)]
        uncond = [compiled(params.text_uncond)] if params.text_uncond is not None else None
        scale = 1.0 if uncond is None else self.p.cfg_scale
        model, x, t, options = patcher.model, params.x, params.sigma, patcher.model_options
        for modifier in options.get("conditioning_modifiers", []):
            model, x, t, uncond, cond, scale, options, _ = modifier(model, x, t, uncond, cond, scale, options, 1)
        for guide in options.get("sampler_pre_cfg_function", []):
            model, cond, uncond, x, t, options = guide(model, cond, uncond, x, t, options)
        high, low = calc_cond_uncond_batch(self.p.webui, model, (cond, uncond), x, t, options)
        out = high if uncond is None else low + scale * (high - low * len(cond))
        for guide in options.get("sampler_post_cfg_function", []):
            out = guide(self.p.webui, model, out, cond, uncond, x, t, options)
        return out


def calc_cond_uncond_batch(
    web: Any, model: Any, conds: Any, x: Tensor, t: Tensor, options: Any
) -> tuple[Tensor, Tensor]:
    """The sum of what conditions predict, and of what negative ones do."""
    sums = torch.zeros_like(x), torch.zeros_like(x)
    to_run = [(_rows(cond, x), which) for which, kind in enumerate(conds) for cond in kind or ()]
    while to_run:
        alike = [at for at, (one, _) in enumerate(to_run) if _joins(one, to_run[0][0])][::-1]
        batch = [to_run.pop(at) for at in (alike[:1] if web.memory_is_short else alike)]
        which = [kind for _, kind in batch]
        inputs = {name: one.concat([other[name] for other, _ in batch[1:]]) for name, one in batch[0][0].items()}
        inputs["transformer_options"] = {"cond_or_uncond": which, "sigmas": t}
        call = options.get(
            "model_function_wrapper", lambda apply, given: apply(given["input"], given["timestep"], **given["c"])
        )
        given = {"input": torch.cat([x] * len(batch)), "timestep": torch.cat([t] * len(batch)), "c": inputs}
        for kind, part in zip(which, call(model.apply_model, given).chunk(len(batch))):
            sums[kind].add_(part)
    return sums


def _rows(cond: dict[str, Any], x: Tensor) -> dict[str, Any]:
    return {
        name: one.process_cond(batch_size=len(x), device=x.device, area=None)
        for name, one in cond["model_conds"].items()
    }


def _joins(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name].can_concat(other[name]) for name in one)


class ForgeSampler(Sampler):
    def __init__(self, name: str, p: Any) -> None:
        super().__init__(name, p)
        self.model_wrap_cfg = ForgeDenoiser(self)
