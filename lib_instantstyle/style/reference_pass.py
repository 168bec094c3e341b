"""The reference's own rows: run through the UNet before the job's, so that the job's rows can look at them.

    x_r = √ᾱ_t z_r + √(1 − ᾱ_t) ε         the reference's latent at the call's noise level, no inversion
                                          (Visual Style Prompting, arXiv:2402.12974; ControlNet's reference_only)

The conditional row runs with the text of the first conditional row of the call, the unconditional one with that of the
first unconditional row. Whichever of the two a call has, it is complete by itself: it does not matter how a host cuts
its batch. The extra rows end with the last layer that anybody looks at; neither the sampler nor another extension sees
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from .rows import ModelCall
from .self_attention import AllNoted, Attending, ReferenceRows

# Arguments of a UNet that belong to the job's rows alone, and what the reference's rows get in their place.
NOT_ITS_OWN: dict[str, Any] = {
    "control": None,
    "down_block_additional_residuals": None,
    "mid_block_additional_residual": None,
    "down_intrablock_additional_residuals": None,
    "transformer_options": {},
}
SAMPLE, TIMESTEP = ("sample", "x"), ("timestep", "timesteps")  # what UNets call their first two arguments
SEED = 0x5EED  # of the noise; a step's own comes on top

Latents = Callable[[tuple[int, int]], Tensor]  # height and width of the latent → (1, channels, height, width)


@dataclass(frozen=True, eq=False)
class Reference:
    """One picture that a job's rows look at."""

    rows: ReferenceRows
    latent: Latents
    units: tuple[Attending, ...]  # one of each kind that looks at it
    noted: frozenset[tuple[nn.Module, str]]  # what they look at: module and what of it


@dataclass
class ReferencePass:
    """A hook on the UNet. `attach` and `detach` are a pair; detaching twice is harmless."""

    unet: nn.Module
    references: Sequence[Reference]
    call: ModelCall
    alphas_cumprod: Tensor  # (timesteps,)
    _handle: RemovableHandle | None = None

    def attach(self) -> None:
        """Put the hook in place; those that tell the call's rows must come before it."""

        def instantstyle_run_references(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.call.cond_rows is not None:
                self._run(args, kwargs)

        self._handle = self.unet.register_forward_pre_hook(instantstyle_run_references, with_kwargs=True)

    def detach(self) -> None:
        """Take the hook out."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        marks = self.call.cond_rows or ()
        halves = tuple(dict.fromkeys(marks))
        given = _Call(args, kwargs).of_rows([marks.index(half) for half in halves], len(marks))
        for reference in self.references:
            if any(unit.factor(self.call.progress) for unit in reference.units):
                reference.rows.halves = halves
                self._write(reference, given)

    def _write(self, reference: Reference, given: _Call) -> None:
        """Run one reference through the UNet while its layers take note. None of these rows is the job's."""
        given = given.with_sample(self._noised(reference, given))
        marks, self.call.cond_rows = self.call.cond_rows, None
        reference.rows.writing, reference.rows.awaited = True, set(reference.noted)
        try:
            with suppress(AllNoted):
                given.run(self.unet)
        finally:
            reference.rows.writing, self.call.cond_rows = False, marks
            reference.rows.awaited.clear()

    def _noised(self, reference: Reference, given: _Call) -> Tensor:
        """(halves, channels, height, width): the same noise in both, and whatever part of a step is computed first."""
        sample, timestep = given.argument(0, SAMPLE), given.argument(1, TIMESTEP)
        latent = reference.latent(tuple(sample.shape[-2:])).float()
        if sample.shape[1] != latent.shape[1]:
            self.call.refuse(
                f"The checkpoint takes {sample.shape[1]} channels, a reference has {latent.shape[1]}: "
                "this method goes with checkpoints that are not for inpainting."
            )
        made = torch.Generator().manual_seed(SEED + round(self.call.progress * 1e6))
        noise = torch.randn(latent.shape, generator=made)
        level = torch.as_tensor(timestep).flatten()[:1].float()
        noised = noised_latent(latent.to(level.device), noise.to(level.device), level, self.alphas_cumprod)
        return noised.to(sample).expand(len(reference.rows.halves), -1, -1, -1)


@dataclass(frozen=True)
class _Call:
    """What a UNet is called with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def argument(self, position: int, names: Sequence[str]) -> Any:
        if position < len(self.args):
            return self.args[position]
        return next(self.kwargs[name] for name in names if name in self.kwargs)

    def of_rows(self, index: Sequence[int], rows: int) -> _Call:
        """The call for some of its rows, without what belongs to all of them."""

        def some(x: Tensor) -> Tensor:
            return x[list(index)] if x.dim() and len(x) == rows else x

        kept = {name: NOT_ITS_OWN.get(name, value) for name, value in self.kwargs.items()}
        return _Call(*tree_map_only(Tensor, some, (self.args, kept)))

    def with_sample(self, sample: Tensor) -> _Call:
        if self.args:
            return _Call((sample, *self.args[1:]), self.kwargs)
        name = next(name for name in SAMPLE if name in self.kwargs)
        return _Call((), {**self.kwargs, name: sample})

    def run(self, unet: nn.Module) -> None:
        """The UNet as its class computes it: ControlNet puts a `forward` of its own on the instance. So does accelerate
        where it offloads, and there it must be that one.
        """
        own = unet.forward if hasattr(unet, "_hf_hook") else partial(type(unet).forward, unet)
        own(*self.args, **self.kwargs)


def noised_latent(latent: Tensor, noise: Tensor, timestep: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """√ᾱ_t z + √(1 − ᾱ_t) ε for a timestep (1,) that may lie between two of the schedule's."""
    alpha = alpha_at(timestep, alphas_cumprod)
    return alpha.sqrt() * latent + (1 - alpha).sqrt() * noise


def alpha_at(timestep: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """ᾱ of timesteps that may lie between two of the schedule's, as k-diffusion finds it: linear in log σ between them,
    σ² = (1 − ᾱ) / ᾱ.
    """
    alphas = alphas_cumprod.to(timestep).clamp(min=1e-9)
    log_sigmas = ((1 - alphas) / alphas).clamp(min=1e-9).log() / 2
    place = timestep.clamp(0, len(alphas) - 1)
    low, high = place.floor().long(), place.ceil().long()
    sigma = torch.lerp(log_sigmas[low], log_sigmas[high], place - low).exp()
    return 1 / (sigma.square() + 1)
