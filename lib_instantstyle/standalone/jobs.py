"""One generation: what is asked, how a diffusers pipeline is asked for it, and what the picture says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from .. import __version__
from ..reference.plans import Plan
from ..units.errors import InstantStyleError, UnitError
from ..units.infotext import VERSION_KEY, to_infotext, unit_key
from ..units.unit import StyleUnit

STEP = 8  # pixels; the side of a latent, so every side is a multiple of it
MOST_PIXELS = 8192  # of a side
RANGES = {  # both ends included; what is no number lies in none
    "steps": (1, 1000),  # the timesteps that SDXL was trained on
    "count": (1, 10_000),
    "at_once": (1, 10_000),
    "guidance": (0.0, 100.0),
    "control_scale": (0.0, 10.0),
    "seed": (0, 2**63 - 1 - 10_000),  # the others count up
}


@dataclass(frozen=True)
class Job:
    """One prompt, some pictures. An init picture makes it img2img, a control picture brings in the ControlNet."""

    prompt: str
    units: tuple[StyleUnit, ...] = ()
    negative: str = ""
    width: int | None = None  # pixels; the init or control picture's, or the model's own, when not given
    height: int | None = None
    steps: int = 30
    guidance: float = 5.0  # 1 or less: no guidance, one row for each picture
    seed: int = 0  # of the first picture; the others count up
    count: int = 1  # pictures
    at_once: int = 1  # pictures in one batch
    init: Image.Image | None = None
    strength: float = 0.6  # share of the steps that an init picture goes through
    control: Image.Image | None = None  # as the ControlNet expects it: edges for canny, depth for depth
    control_scale: float = 1.0

    @property
    def steps_taken(self) -> int:
        """Steps of the sampling pass; an init picture skips the first ones."""
        return self.steps if self.init is None else min(int(self.steps * self.strength), self.steps)

    def model_calls(self, order: int) -> int:
        """UNet calls of the sampling pass: a scheduler of second order makes two for each step but the last."""
        return self.steps_taken * order - (order - 1)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, multiples of 8, or None: the model's own."""
        source = self.init or self.control
        given = (self.width or (source.width if source else None), self.height or (source.height if source else None))
        if given[0] is None or given[1] is None:
            return None
        return max(given[0] // STEP, 1) * STEP, max(given[1] // STEP, 1) * STEP

    def check(self) -> None:
        """Raise UnitError where a number is out of range, before any model is asked."""
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            _check(low <= value <= high, name, f"must be between {low:g} and {high:g}", value)
        _check((self.width is None) == (self.height is None), "width", "must be given together with height", self.width)
        for name in ("width", "height"):
            value = getattr(self, name)
            fits = value is None or (64 <= value <= MOST_PIXELS and value % STEP == 0)
            _check(fits, name, f"must be a multiple of {STEP} between 64 and {MOST_PIXELS}", value)
        _check(0 < self.strength <= 1, "strength", "must be greater than 0 and at most 1", self.strength)
        _check(self.steps_taken >= 1, "strength", f"leaves none of the {self.steps} steps; raise it", self.strength)


def _check(holds: bool, name: str, rule: str, value: object) -> None:
    if not holds:
        raise UnitError(f"{rule}, got {value}.", name)


def batches(job: Job) -> Iterator[list[int]]:
    """The seeds of each batch. A picture depends on its own seed alone, not on who is beside it."""
    seeds = list(range(job.seed, job.seed + job.count))
    for start in range(0, job.count, job.at_once):
        yield seeds[start : start + job.at_once]


def call_arguments(job: Job, seeds: Sequence[int]) -> dict[str, Any]:
    """What the job's pipeline is called with beside its prompts, for one batch."""
    given: dict[str, Any] = {
        "num_inference_steps": job.steps,
        "guidance_scale": job.guidance,
        "num_images_per_prompt": len(seeds),
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],  # on the CPU: the same on every device
    }
    return {**given, **_size_arguments(job), **_picture_arguments(job)}


def _size_arguments(job: Job) -> dict[str, Any]:
    if job.size is None or (job.init is not None and job.control is None):  # plain img2img has its picture's size
        return {}
    return {"width": job.size[0], "height": job.size[1]}


def _picture_arguments(job: Job) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if job.control is not None:
        given["control_image" if job.init else "image"] = _fitted(job, job.control)
        given["controlnet_conditioning_scale"] = job.control_scale
    if job.init is not None:
        given |= {"image": _fitted(job, job.init), "strength": job.strength}
    return given


def _fitted(job: Job, image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize(job.size or image.size, Image.Resampling.LANCZOS)


def check_kind(job: Job, has_controlnet: bool) -> None:
    """Raise InstantStyleError when the control picture and the ControlNet do not come together."""
    if job.control is not None and not has_controlnet:
        raise InstantStyleError("A control picture needs a ControlNet; none was opened. Name one with --controlnet.")


def infotext(job: Job, plans: Sequence[Plan], seed: int, size: tuple[int, int]) -> str:
    """The `parameters` of a picture in the WebUI's form, so that its PNG Info reads it."""
    params: dict[str, object] = {
        "Steps": job.steps,
        "CFG scale": job.guidance,
        "Seed": seed,
        "Size": f"{size[0]}x{size[1]}",
    }
    if job.init is not None:
        params["Denoising strength"] = job.strength
    if plans:
        params |= {unit_key(plan.number): to_infotext(plan.described) for plan in plans}
        params[VERSION_KEY] = __version__
    prompts = [job.prompt, *([f"Negative prompt: {job.negative}"] if job.negative else [])]
    return "\n".join([*prompts, ", ".join(f"{key}: {_quoted(value)}" for key, value in params.items())])


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",:\n") else text
