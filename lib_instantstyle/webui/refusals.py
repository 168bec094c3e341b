"""How a job is refused where a person sees it, although the WebUI swallows the exceptions of scripts.

A refusal takes the place of something the job must use next (docs/decisions/0003-refusals.md). Some WebUIs lose what a
job of their page raises, too: there the job ends without pictures, and the sentence stands under the empty gallery.
"""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import torch
from fastapi import HTTPException
from torch import Tensor

from modules import shared

from ..units.errors import InstantStyleError, explained

REFUSED = "_instantstyle_refused"  # on a job that ends without pictures

log = logging.getLogger("InstantStyle")


class InstantStyleRefused(HTTPException):
    """A refusal as the WebUI shows it: an HTTP answer for API clients, a plain sentence in the UI."""

    def __init__(self, error: InstantStyleError) -> None:
        super().__init__(status_code=error.status_code, detail=error.as_json())
        self.message = str(error)

    def __str__(self) -> str:
        return self.message


class Refusal:
    """Stands where the job's sampler, latents or `sample` stood; whatever touches it ends the job with the error."""

    def __init__(self, error: InstantStyleError) -> None:
        self._error = error

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise InstantStyleRefused(self._error)

    def __getattr__(self, name: str) -> NoReturn:
        raise InstantStyleRefused(self._error)

    def __getitem__(self, key: object) -> NoReturn:
        raise InstantStyleRefused(self._error)


class NoPictures(Tensor):
    """A batch of no pictures that goes through whatever the WebUI does with a batch."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.stack:
            return args[0][0]
        try:
            return super().__torch_function__(func, types, args, kwargs or {})
        except RuntimeError:  # as when it is blended with what it should have been as many of
            return no_pictures()


class NoSamples(list[Tensor]):
    """What stands for the latents of a batch of no pictures."""

    already_decoded = True


class QuietSampler:
    """Stands where the job's sampler stood in a WebUI that loses errors; ends the job without pictures.

    With a sampler it tries that first: what is raised in it is said under the gallery.
    """

    def __init__(self, p: Any, sampler: Any = None) -> None:
        self._p, self._sampler = p, sampler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)

    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._told("sample", args, kwargs)

    def sample_img2img(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._told("sample_img2img", args, kwargs)

    def _told(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if self._sampler is None:
            return no_pictures()
        try:
            return getattr(self._sampler, method)(*args, **kwargs)
        except InstantStyleRefused as refused:
            end_without_pictures(self._p, refused.message)
        except Exception as error:
            end_without_pictures(self._p, str(explained(error)))
        return no_pictures()


def no_pictures() -> Tensor:
    return torch.empty(0, 3, 8, 8).as_subclass(NoPictures)


def end_without_pictures(p: Any, message: str) -> None:
    """The job makes no picture any more, and says why."""
    log.warning(message)
    p.comment(message)
    p.n_iter, p.enable_hr = 0, False
    setattr(p, REFUSED, True)


def refuse_planned(p: Any, error: InstantStyleError, *, loud: bool) -> None:
    """Before anything is sampled. `loud`: the WebUI shows what a job raises."""
    if loud:
        p.sample = Refusal(error)
    else:
        end_without_pictures(p, str(error))


def refuse_pass(p: Any, error: InstantStyleError, *, loud: bool) -> None:
    """Before a sampling pass."""
    if loud:
        p.sampler = Refusal(error)
    else:
        end_without_pictures(p, str(error))
        shared.state.interrupted = True
        p.sampler = QuietSampler(p)


def refuse_samples(p: Any, samples: Any, error: InstantStyleError, *, loud: bool) -> None:
    """After sampling. `samples` holds the latents, as `samples.samples`."""
    if loud:
        samples.samples = Refusal(error)
    else:
        end_without_pictures(p, str(error))
        shared.state.interrupted = True


def empty_if_refused(p: Any, samples: Any) -> None:
    """Take the latents of a job that ends without pictures away."""
    if getattr(p, REFUSED, False):
        samples.samples = NoSamples([no_pictures()])
