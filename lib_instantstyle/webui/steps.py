"""How many model calls a WebUI job will make, and whether a unit acts in any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modules import sd_samplers, sd_samplers_common

from ..reference.plans import UnitPlan
from ..units.errors import UnitError


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


def check_windows(plans: Sequence[UnitPlan], passes: Sequence[int]) -> None:
    """Raises UnitError when a unit acts in no model call of any sampling pass; the second is the hires pass."""
    for plan in plans:
        own = [total for number, total in enumerate(passes) if plan.unit.acts_in(hires=number > 0)]
        if not own:
            raise UnitError(
                "This reference acts in the hires pass only, and this job has none. Turn on hires fix, or set Passes "
                "to both.",
                "passes",
                plan.number,
            )
        if not any(plan.unit.window.holds_a_step_of(total) for total in own):
            raise UnitError(
                f"No step falls between start {plan.unit.start:g} and end {plan.unit.end:g}: this job makes "
                f"{' + '.join(map(str, own))} model calls. Widen the window or take more steps.",
                "start",
                plan.number,
            )
