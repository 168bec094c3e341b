"""How many model calls a WebUI job will make, and how much of the picture they draw."""

from __future__ import annotations

from typing import Any

from modules import sd_samplers, sd_samplers_common

from ..style.regions import WHOLE, Part


def model_calls(p: Any) -> list[int]:
    """How many model calls each sampling pass of a job will count (`total_steps` of its denoiser)."""
    config = sd_samplers.find_sampler_config(p.sampler_name)
    steps = [p.steps]
    if getattr(p, "init_images", None):
        steps = [sd_samplers_common.setup_img2img_steps(p)[1] + 1]
    elif getattr(p, "enable_hr", False):
        steps += [sd_samplers_common.setup_img2img_steps(p, p.hr_second_pass_steps or p.steps)[1] + 1]
    return [config.total_steps(count) if config else count for count in steps]


def may_be_empty(p: Any) -> bool:
    """Whether the sampling pass that begins may make no model call: of a hires pass of one step, some samplers make
    none."""
    if not getattr(p, "is_hr_pass", False):
        return False
    return bool(sd_samplers_common.setup_img2img_steps(p, p.hr_second_pass_steps or p.steps)[1] < 1)


def drawn_part(p: Any) -> Part:
    """What a job draws of its picture: all of it, or with "Only masked" what lies around the inpainted place."""
    box, images = getattr(p, "paste_to", None), getattr(p, "init_images", None)
    if not box or not images:
        return WHOLE
    (left, top, wide, high), (width, height) = box, images[0].size
    return left / width, top / height, (left + wide) / width, (top + high) / height
