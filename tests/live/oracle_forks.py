"""What the oracle must know of a call in the Forge family, found out without their own flags or our marks.

A row is unconditional when its pooled text is the negative prompt's. That holds for whatever layout, for tiles, and
where another extension gives the negative prompt in the place of the prompt. Steps are the denoiser's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from live_kind import called_for_a_prediction
from torch import Tensor

if TYPE_CHECKING:
    from oracle import Oracle


@contextmanager
def fork_calls(oracle: Oracle) -> Iterator[None]:
    """Every call of the UNet is styled by the oracle."""
    from modules import sd_samplers_cfg_denoiser as denoising

    called, told = called_for_a_prediction(), denoising.cfg_denoiser_callback
    call, seen = called.forward, {}

    def tell(params: Any) -> None:
        told(params)
        of_this_pass = seen.get("pass") == oracle.pass_number
        uncond = None if params.text_uncond is None else params.text_uncond["vector"]
        seen.update({"pass": oracle.pass_number, "step": seen["step"] + 1 if of_this_pass else 0, "uncond": uncond})

    def call_styled(self: Any, x: Tensor, *args: Any, y: Tensor, **kwargs: Any) -> Tensor:
        rows = "".join("u" if _is_one_of(row, seen["uncond"]) else "c" for row in y)
        with oracle.styled(self, seen["step"], rows, x.shape[-2:]):
            return call(self, x, *args, y=y, **kwargs)

    with mock.patch.object(denoising, "cfg_denoiser_callback", tell), mock.patch.object(called, "forward", call_styled):
        yield


def _is_one_of(row: Tensor, rows: Tensor | None) -> bool:
    return rows is not None and any(bool((row == other.to(row)).all()) for other in rows)
