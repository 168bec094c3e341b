"""The colours of a reference: the denoised latent gets the mean and the deviation of the reference's latent.

    x ← x + Σ_units p · m · ((x − μ(x)) / σ(x) · σ(z_r) + μ(z_r) − x)

p is the unit's palette, m its region; μ and σ are over the places of each channel, in the region. With p = m = 1 this
is the colour calibration of Visual Style Prompting (arXiv:2402.12974), which does it late in sampling. StyleKeeper
(arXiv:2510.06827) does it by a share p between 50 % and 80 % of the steps, and so do we. It needs no model: the host
gives what guidance came to, and goes on with what is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..reference.host import Host
from ..reference.latents import pixels_for
from ..reference.pictures import Picture
from ..reference.plans import Coloured, masked
from ..units.errors import PictureError, StyleNotAppliedError, placed
from ..units.schedule import Window
from .regions import Place, Region
from .rows import ModelCall

EPSILON = 1e-6  # beside a deviation that is divided by: a flat channel is not divided by zero

Statistics = tuple[Tensor, Tensor]  # mean and deviation of each channel, both (rows, channels, 1, 1)


@dataclass(frozen=True, eq=False)
class Colours:
    """One unit whose colours are taken over."""

    of: Callable[[tuple[int, int]], Statistics]  # the reference's, by height and width of the latent
    share: float
    window: Window
    region: Region | None = None

    def acts_at(self, progress: float) -> bool:
        """Whether the model call at `progress` is one of those after which colours are taken over."""
        return self.window.contains(progress)


@dataclass
class Palette:
    """All units whose colours are taken over in a job. The host asks before and after each of the job's model calls."""

    call: ModelCall
    units: tuple[Colours, ...] = ()
    applied: int = 0  # model calls of this sampling pass after which colours were taken over
    _awaited: bool = False  # the step in progress is one of them, and not done

    def start(self) -> None:
        """A sampling pass begins: forget the one before."""
        self.applied, self._awaited = 0, False

    def expect(self) -> None:
        """A model call of the job begins. Raises StyleNotAppliedError when the one before was passed by."""
        self.check()
        self._awaited = any(unit.acts_at(self.call.progress) for unit in self.units)

    def check(self) -> None:
        """Raise StyleNotAppliedError where colours were due, and nobody has asked for them."""
        if self._awaited:
            raise StyleNotAppliedError(
                "The reference's colours did not reach the picture: another extension or script has replaced the "
                "sampling. Switch off either that or InstantStyle."
            )

    def apply(self, x: Tensor) -> Tensor:
        """The denoised latent (pictures, channels, height, width) of the call that was expected, with its colours."""
        if not self._awaited:
            return x
        place, exact = Place((x.shape[-2], x.shape[-1]), self.call.part), x.float()
        acting = [unit for unit in self.units if unit.acts_at(self.call.progress)]
        changes = [unit.share * change(exact, unit.of(place.grid), _shares(unit.region, place)) for unit in acting]
        self.applied, self._awaited = self.applied + 1, False
        return (exact + torch.stack(changes).sum(0)).to(x)


def _shares(region: Region | None, place: Place) -> Tensor | None:
    return None if region is None else region.on(place).view(1, 1, *place.grid)


def change(x: Tensor, reference: Statistics, shares: Tensor | None = None) -> Tensor:
    """m · (AdaIN(x, reference) − x), all (rows, channels, height, width); shares m: (1, 1, height, width)."""
    mean, deviation = statistics(x, shares)
    new_mean, new_deviation = (one.to(x) for one in reference)
    found = (x - mean) / (deviation + EPSILON) * new_deviation + new_mean - x
    return found if shares is None else found * shares.to(x)


def statistics(x: Tensor, shares: Tensor | None = None) -> Statistics:
    """Mean and deviation of each channel over its places, each of which counts by its share, (1, 1, height, width)."""
    weights = torch.ones_like(x[:1, :1]) if shares is None else shares.to(x)
    weights = weights / weights.sum().clamp(min=EPSILON)
    mean = (x * weights).sum((2, 3), keepdim=True)
    return mean, ((x - mean).square() * weights).sum((2, 3), keepdim=True).sqrt()


def colours(host: Host, plans: Sequence[Coloured]) -> tuple[Colours, ...]:
    """What these units take over; nothing is encoded yet."""
    return tuple(_colours(host, plan) for plan in plans if plan.unit.palette_share)


def _colours(host: Host, plan: Coloured) -> Colours:
    region = Region.of(plan.read["mask"][0].image) if plan.read["mask"] else None
    kept: dict[tuple[int, int], Statistics] = {}

    def of(size: tuple[int, int]) -> Statistics:
        if size not in kept:
            with placed(unit=plan.number, field="image"):
                kept[size] = of_pictures(host, plan, size)
        return kept[size]

    return Colours(of, plan.unit.palette_share, plan.unit.palette_window, region)


def of_pictures(host: Host, plan: Coloured, size: tuple[int, int]) -> Statistics:
    """The mean over a unit's pictures, by their weights. Raises InstantStyleError."""
    found = [_of_picture(host, plan, picture, mask, size) for picture, mask in masked(plan.read)]
    weights = torch.tensor(plan.unit.image_weights or (1.0,) * len(found))
    shares = (weights / weights.sum()).view(-1, 1, 1, 1)
    means, deviations = (torch.cat(parts) for parts in zip(*found))
    return (means * shares).sum(0, keepdim=True), (deviations * shares).sum(0, keepdim=True)


def _of_picture(
    host: Host, plan: Coloured, picture: Picture, mask: Picture | None, size: tuple[int, int]
) -> Statistics:
    latent = plan.latents.of(host, picture, size).float().cpu()
    if mask is None:
        return statistics(latent)
    shares = functional.adaptive_avg_pool2d(pixels_for(mask.image, *size)[:, :1], size)
    if not shares.any():
        raise PictureError(
            "Nothing of the part that counts is left once the reference is cut to the shape of this job. Give the mask "
            "white places nearer to the middle.",
            "image_mask",
        )
    return statistics(latent, shares)
