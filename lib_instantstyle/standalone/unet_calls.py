"""The UNet calls of a diffusers pipeline: which rows are conditional, and how far sampling is.

The SDXL pipelines put the unconditional rows before the conditional ones, as many of each, whenever
`do_classifier_free_guidance` says so, and make one call for every entry of the scheduler's timesteps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from ..style.rows import ModelCall
from ..units.errors import IncompatibleModelError
from ..units.schedule import progress_at


@dataclass
class PipelineCalls:
    """Tells a session's ModelCall about every UNet call of one pipeline, from `attach` to `detach`."""

    pipe: Any
    call: ModelCall
    _timesteps: Any = None  # of the sampling pass in progress; every pass makes a new tensor
    _step: int = 0  # UNet calls made in that pass
    _hook: RemovableHandle | None = None

    def attach(self) -> None:
        """Read every call before it happens."""
        self.call.start()

        def instantstyle_read_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._read(args[0] if args else kwargs["sample"])

        self._hook = self.pipe.unet.register_forward_pre_hook(instantstyle_read_call, with_kwargs=True, prepend=True)

    def detach(self) -> None:
        """Read nothing any more; no row is ours."""
        self.call.idle()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _read(self, sample: Any) -> None:
        if self._timesteps is not self.pipe.scheduler.timesteps:
            self._timesteps, self._step = self.pipe.scheduler.timesteps, 0
        rows = sample.shape[0]
        calls = getattr(self.pipe, "num_timesteps", None) or len(self._timesteps)  # T2I-Adapter pipelines do not count
        self.call.progress = progress_at(self._step, calls)
        self.call.begin(rows_of_batch(rows, self.pipe.do_classifier_free_guidance), rows, tuple(sample.shape[-2:]))
        self._step += 1


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
