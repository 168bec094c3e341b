"""The UNet calls of a diffusers pipeline: which rows are conditional, how far sampling is, and what guidance came to.

The SDXL pipelines put the unconditional rows before the conditional ones, as many of each, whenever
`do_classifier_free_guidance` says so, and make one call for every entry of the scheduler's timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..style.palette import Palette
from ..style.reference_pass import alpha_at
from ..style.rows import ModelCall
from ..units.errors import IncompatibleModelError
from ..units.schedule import progress_at


@dataclass
class PipelineCalls:
    """Tells a session's ModelCall about every UNet call of one pipeline, and its palette what guidance came to."""

    pipe: Any
    call: ModelCall
    palette: Palette
    _timesteps: Any = None  # of the sampling pass in progress; every pass makes a new tensor
    _step: int = 0  # UNet calls made in that pass
    _hook: RemovableHandle | None = None
    _coloured_scheduler: Any = None  # whose `step` goes through the palette
    _own_step: dict[str, Any] = field(default_factory=dict)

    def attach(self) -> None:
        """Read every call before it happens."""
        self.call.start()

        def instantstyle_read_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._read(args[0] if args else kwargs["sample"])

        self._hook = self.pipe.unet.register_forward_pre_hook(instantstyle_read_call, with_kwargs=True, prepend=True)
        self.palette.start()
        if self.palette.units:
            self._colour_steps(self.pipe.scheduler)

    def detach(self) -> None:
        """Read nothing any more; no row is ours."""
        self.call.idle()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self._coloured_scheduler is not None:
            del self._coloured_scheduler.step
            vars(self._coloured_scheduler).update(self._own_step)
            self._coloured_scheduler = None

    def _read(self, sample: Any) -> None:
        if self._timesteps is not self.pipe.scheduler.timesteps:
            self._timesteps, self._step = self.pipe.scheduler.timesteps, 0
        rows = sample.shape[0]
        calls = getattr(self.pipe, "num_timesteps", None) or len(self._timesteps)  # T2I-Adapter pipelines do not count
        self.call.progress = progress_at(self._step, calls)
        self.palette.expect()
        self.call.begin(rows_of_batch(rows, self.pipe.do_classifier_free_guidance), rows, tuple(sample.shape[-2:]))
        self._step += 1

    def _colour_steps(self, scheduler: Any) -> None:
        """Have a scheduler go on from what the palette makes of its input. Pipelines read the signature of `step`."""
        own = scheduler.step
        self._own_step = {name: value for name, value in vars(scheduler).items() if name == "step"}  # somebody else's

        @wraps(own)
        def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            return own(self._coloured(scheduler, model_output, timestep, sample), timestep, sample, *args, **kwargs)

        scheduler.step, self._coloured_scheduler = step, scheduler

    def _coloured(self, scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
        """With x the UNet's input, x = √ᾱ x₀ + √(1 − ᾱ) ε and v = √ᾱ ε − √(1 − ᾱ) x₀."""
        kind = scheduler.config.prediction_type
        if kind == "sample":
            return self.palette.apply(output)
        x = scheduler.scale_model_input(sample, timestep).float()
        alpha = alpha_at(torch.as_tensor(timestep).to(x), scheduler.alphas_cumprod)
        signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
        before = signal * x - noise * output if kind == "v_prediction" else (x - noise * output) / signal
        after = self.palette.apply(before)
        if after is before:
            return output
        moved = (after - before) * (1 / noise if kind == "v_prediction" else signal / noise)
        return (output - moved).to(output)


def rows_of_batch(rows: int, guided: bool) -> tuple[bool, ...]:
    """For each row of a call whether it is conditional: the second half of them with guidance, else all.

    Raises IncompatibleModelError when guided rows cannot be halved.
    """
    if not guided:
        return (True,) * rows
    if rows % 2:
        raise IncompatibleModelError(
            f"With guidance the rows of a UNet call come in pairs; this pipeline made a call with {rows}. "
            "Use one of diffusers' plain SDXL pipelines."
        )
    return (False,) * (rows // 2) + (True,) * (rows // 2)


def check_pipeline(pipe: Any) -> None:
    """Raise IncompatibleModelError for a pipeline whose UNet calls cannot be read or hooked."""
    if getattr(pipe, "do_perturbed_attention_guidance", False) or "PAG" in type(pipe).__name__:
        raise IncompatibleModelError(
            f"{type(pipe).__name__} adds rows that are neither conditional nor unconditional. "
            "Use one of diffusers' plain SDXL pipelines."
        )
    compiled = hasattr(pipe.unet, "_orig_mod") or getattr(pipe.unet, "_compiled_call_impl", None) is not None
    if compiled:
        raise IncompatibleModelError(
            "The UNet is compiled (torch.compile), which passes over the hooks that add style. Use the UNet as it is."
        )
    if not hasattr(type(pipe), "do_classifier_free_guidance"):
        raise IncompatibleModelError(
            f"{type(pipe).__name__} does not say which rows are conditional. "
            "Use an SDXL pipeline of diffusers 0.30 or later."
        )
