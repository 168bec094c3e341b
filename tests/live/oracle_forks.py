"""What the oracle must know of a call in the Forge family, found out without their own flags or our marks.

A row is unconditional when its pooled text is the negative prompt's. That holds for whatever layout, for tiles, and
where another extension gives the negative prompt in the place of the prompt. Steps are the denoiser's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from live_kind import called_for_a_prediction
from torch import Tensor

if TYPE_CHECKING:
    from oracle import Layer, Oracle

Attend = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]  # what stands in an attention's place


@dataclass(frozen=True)
class Now:
    """The call of the UNet in progress."""

    number: int  # of the pass
    step: int
    rows: str
    size: Sequence[int]  # height and width of the latent


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

    def call_styled(
        self: Any, x: Tensor, *args: Any, y: Tensor, transformer_options: dict[str, Any], **kwargs: Any
    ) -> Tensor:
        rows = "".join("u" if _is_one_of(row, seen["uncond"]) else "c" for row in y)
        now = Now(oracle.pass_number, seen["step"], rows, x.shape[-2:])
        options = _with_style(transformer_options, oracle.layers, now)
        with oracle.styled(self, now):
            return call(self, x, *args, y=y, transformer_options=options, **kwargs)

    with mock.patch.object(denoising, "cfg_denoiser_callback", tell), mock.patch.object(called, "forward", call_styled):
        yield


def _is_one_of(row: Tensor, rows: Tensor | None) -> bool:
    return rows is not None and any(bool((row == other.to(row)).all()) for other in rows)


def _with_style(options: dict[str, Any], layers: Mapping[str, list[Layer]], now: Now) -> dict[str, Any]:
    """Where another extension computes a whole attention itself, as their IP-Adapter does, the style is added to that:
    the layer's own `forward` is not called there."""
    replaced = options.get("patches_replace", {})
    attending = dict(replaced.get("attn2", {}))
    for path, styled in layers.items():
        place = _place(path)
        if own := attending.get(place, attending.get(place[:2])):
            attending[place] = _added(own, [layer for layer in styled if layer.acts(now)], now)
    return {**options, "patches_replace": {**replaced, "attn2": attending}} if attending else options


def _place(path: str) -> tuple[str, int, int]:
    """ "input_blocks.8.1.transformer_blocks.3.attn2" → ("input", 8, 3), as these WebUIs name a layer."""
    block, *rest = path.split(".")
    number = 0 if block == "middle_block" else int(rest[0])
    return block.partition("_")[0], number, int(rest[-2])


def _added(own: Attend, layers: Sequence[Layer], now: Now) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor, told: dict[str, Any]) -> Tensor:
        first = own(query, key, value, told)
        return first + sum(layer.term(first, query, now, told["n_heads"]) for layer in layers)

    return attend
