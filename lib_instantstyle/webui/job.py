"""One WebUI job under style: who owns the session, which rows are conditional, how far it is.

Rows are told apart by a mark inside the conditioning, which the WebUI slices and concatenates along with the text
(docs/decisions/0002-row-marks.md).
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from modules import shared

from ..reference.plans import Plan, check_windows
from ..style.rows import ModelCall
from ..style.session import StyleSession
from ..units.errors import StyleNotAppliedError, explained
from ..units.infotext import VERSION_KEY, to_infotext, unit_key
from ..units.schedule import progress_at
from ..units.unit import StyleUnit
from .hosts.a1111_casting import uncast
from .hosts.folders import keeps_references
from .hosts.live import live_host
from .hosts.webui_host import WebUIHost
from .refusals import InstantStyleRefused, QuietSampler, Refusal
from .steps import drawn_part, may_be_empty, model_calls

BEGUN = "_instantstyle_begun"  # on a job whose sampling has begun with style
ENDED_KEY = "InstantStyle ended early"  # in the infotext: why, for clients that see no comments

log = logging.getLogger("InstantStyle")


@dataclass
class StyleJob:
    """The process's one session and the WebUI job that owns it now. `end` is idempotent and safe at any time."""

    host: WebUIHost
    session: StyleSession
    owner: Any = None  # the WebUI's StableDiffusionProcessing
    plans: tuple[Plan, ...] = ()
    styled: int = 0  # layer calls for this picture that added style, of the sampling passes that are over
    marked: int = 0  # model calls of this sampling pass whose rows are told apart
    unmarked: int = 0  # model calls for this picture whose rows could not be
    sampling: bool = False  # a sampling pass is in progress
    may_be_empty: bool = False  # it may make no model call
    ended: bool = False  # the style ended early in the sampling pass in progress
    hires: bool = False  # the sampling pass in progress is the hires pass
    _model_hook: RemovableHandle | None = None
    _given: Any = None  # what the model call in progress was given, if it is ours

    def begin(self, p: Any, units: Sequence[StyleUnit]) -> None:
        """Check everything before any work is done. Raises InstantStyleError; then nothing is owned or attached."""
        self.end()
        plans = self.session.plan(units)
        if plans:
            check_windows(plans, model_calls(p))
        for plan in plans:
            for picture in plan.all_pictures if keeps_references() else ():
                self.host.picture_store.put(picture)
        self.owner, self.plans, self.styled, self.unmarked = p, plans, 0, 0
        self._end_when_closed(p)

    def _end_when_closed(self, p: Any) -> None:
        """After an error while sampling the WebUI calls no script any more; it only closes the job."""
        close, job = type(p).close, weakref.ref(p)  # not the job itself, or it would keep itself alive

        def end_and_close() -> None:
            self.end()
            if job() is not None:
                close(job())

        p.close = end_and_close

    def end(self) -> None:
        """Leave nothing behind in the model; forget the job."""
        self.detach()
        self.owner, self.plans, self.sampling = None, (), False

    def attach(self, p: Any, units: Callable[[], Sequence[StyleUnit]], size: tuple[int, int] | None = None) -> None:
        """Put the hooks in place for one sampling pass of `p`; if it is not the owner it becomes that, with `units`.

        `size`: height and width of the pass's latents.
        """
        if p is not self.owner:
            self.begin(p, units())
        hires = bool(getattr(p, "is_hr_pass", False))
        if not (hires and self.sampling):
            self.styled = self.unmarked = 0
            p.extra_generation_params.pop(ENDED_KEY, None)  # that of the picture before
        elif not self.hires:  # Forge calls scripts twice before it
            self._check_pass()
        self.session.call.start()
        self.session.palette.start()
        self.sampling, self.hires, self.ended, self.marked = True, hires, False, 0
        self.may_be_empty = may_be_empty(p)
        self.session.latent_size = size
        self._attach()
        if any(plan.acts for plan in self.plans):
            setattr(p, BEGUN, True)
            if not self.host.shows_errors_of(p):
                p.sampler = QuietSampler(p, p.sampler)

    def _attach(self) -> None:
        self.detach()
        with uncast():
            self.session.attach(self.acting)
        if self.session.attached_to is not None:
            self._model_hook = self.host.watch_calls(self._read_rows)

    @property
    def acting(self) -> tuple[Plan, ...]:
        """The plans that act in the sampling pass in progress."""
        return tuple(plan for plan in self.plans if plan.acts and plan.unit.acts_in(hires=self.hires))

    def detach(self) -> None:
        """Take all hooks out; the job goes on owning the session."""
        if self._model_hook is not None:
            self._model_hook.remove()
            self._model_hook = None
        self._given = None
        self.session.detach()

    def before_model_call(self, params: Any) -> None:
        """`on_cfg_denoiser`: keep the step clock and mark the rows; a foreign job gets a model without hooks."""
        if self.owner is None or params.denoiser.p is not self.owner:
            self.detach()
            return
        if self.ended or not self.acting:
            return
        try:
            self._mark(params)
        except Exception as error:  # the WebUI swallows it and goes on: the rest of the picture would lack the style
            self.detach()
            params.text_cond = Refusal(explained(error))

    def _mark(self, params: Any) -> None:
        self._follow_unet()
        call = self.session.call
        call.progress = progress_at(params.denoiser.step, params.denoiser.total_steps)
        call.whole, call.part = (params.x.shape[-2], params.x.shape[-1]), drawn_part(self.owner)
        if self.session.attached_to is not None:
            self.session.palette.expect()
            self.host.mark_rows(params)
            self._given = params

    def after_model_call(self, params: Any) -> None:
        """`on_cfg_after_cfg`: what guidance came to gets the references' colours."""
        given, self._given = self._given, None
        if given is None or self.session.attached_to is None:
            return
        try:
            params.x = self.host.denoised(given, params.x, self.session.palette.apply)
        except Exception as error:  # swallowed, too: then the next model call raises it, or the end of the pass
            self.session.call.fault = self.session.call.fault or explained(error)

    def _follow_unet(self) -> None:
        """The refiner and hires checkpoints swap the UNet: move the hooks, or end the style with a message."""
        try:
            if self.host.unet() is not self.session.attached_to:
                self._attach()
        except Exception as error:  # the WebUI swallows whatever leaves this callback
            self.detach()
            self.ended = True
            self.tell(f"InstantStyle ended early in this picture: {error}")
            self.owner.extra_generation_params[ENDED_KEY] = str(error)

    def _read_rows(self, marks: Tensor | None, x: Tensor) -> None:
        self.marked += marks is not None
        self.unmarked += marks is None
        rows = None if marks is None else [mark > 0.5 for mark in marks.flatten().tolist()]
        self.session.call.begin(rows, len(x), (x.shape[-2], x.shape[-1]))

    def check_applied(self, p: Any) -> None:
        """After sampling: raise StyleNotAppliedError when style that was due did not reach the UNet."""
        begun, self.sampling = vars(p).pop(BEGUN, False), False
        if p is not self.owner and begun:
            raise StyleNotAppliedError(
                "Another job removed the style while this picture was being made. Generate it again."
            )
        if p is not self.owner or not any(plan.acts for plan in self.plans):
            return
        if shared.state.interrupted or shared.state.skipped:
            return
        self._check_pass()
        if not self.styled:
            raise StyleNotAppliedError(self._why_unstyled(p))
        if self.unmarked:
            self.tell(f"InstantStyle: {self.unmarked} model calls were not styled because another extension made them.")

    def _check_pass(self) -> None:
        """A sampling pass is over: raise StyleNotAppliedError when a model call in it lacks style that was due."""
        if not self.acting:
            return
        call = self.session.call
        if call.due and not call.styled and (why := self.host.why_layers_pass_hooks_by()):
            raise StyleNotAppliedError(why)
        call.end()
        self.session.palette.check()
        if not (self.marked or self.ended or self.may_be_empty):
            raise StyleNotAppliedError(
                "The style did not reach the UNet in any step: another extension or script has replaced the sampling. "
                "Switch off either that or InstantStyle."
            )
        self.styled += call.styled + self.session.palette.applied

    def _why_unstyled(self, p: Any) -> str:
        if self.ended:
            return f"The style ended before any reference's Start: {p.extra_generation_params[ENDED_KEY]}"
        return "None of the sampled steps was inside any reference's Start–End range. Widen the range."

    def tell(self, message: str) -> None:
        """Say something under the picture and in the log."""
        log.warning(message)
        if self.owner is not None:
            self.owner.comment(message)


@cache
def live_job() -> StyleJob:
    """The one job of the process, which outlives "Reload UI" like its host."""
    host = live_host()
    return StyleJob(host, StyleSession(host, ModelCall(as_raised=InstantStyleRefused)))


def write_infotext(p: Any, plans: Sequence[Plan], version: str) -> None:
    """Replace what the job's infotext says of us by what it is about to do; nothing when nothing is on."""
    params = p.extra_generation_params  # X/Y/Z cells share this dict: what an earlier cell wrote must go
    for key in [key for key in params if key.startswith("InstantStyle")]:
        del params[key]
    if plans:
        params.update({unit_key(plan.number): to_infotext(plan.described) for plan in plans})
        params[VERSION_KEY] = version
