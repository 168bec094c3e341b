"""Self-attention that looks at a reference, by the book: the reference's rows are in the batch, behind the job's own.

    swapped   A(q, k_r, v_r)
    shared    A(AdaIN(q, q_r), [AdaIN(k, k_r); k_r], [v; v_r]), + log 2 on the logits to the reference's tokens;
              GroupNorms see both as one picture

The rows of each call are told by the test. The reference's latent is noised by k-diffusion's own schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any
from unittest import mock

import numpy as np
import torch
from live_kind import called_for_a_prediction
from PIL import Image
from torch import Tensor, nn

SEED = 0x5EED
SWAPPED_BLOCKS = ("output_blocks.3.1.", "output_blocks.4.1.", "output_blocks.5.1.")


@contextmanager
def looking_at(image: Image.Image, how: str, rows: Sequence[str], steps: int, scale: float = 1.0) -> Iterator[None]:
    """Every job inside has a sampling pass of `steps` model calls' steps; `rows` as oracle.Oracle has them."""
    calls = ((step, call) for step, calls in enumerate(cycle(rows)) for call in calls.split())
    called = called_for_a_prediction()
    own = called.forward

    def forward(self: Any, x: Tensor, t: Tensor, cond: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        step, marks = next(calls)
        assert len(marks) == len(x), f"step {step} was said to have the rows {marks!r}, but has {len(x)}"
        halves = "".join(dict.fromkeys(marks))
        first = [marks.index(half) for half in halves]
        partners = [len(x) + halves.index(mark) for mark in marks + halves]
        latent = noised(image, x.shape[-2:], t[0], step / steps).to(x)
        every = (torch.cat([x, latent.expand(len(halves), -1, -1, -1)]), torch.cat([t, t[first]]), _with(cond, first))
        with ExitStack() as stack:
            for module, replaced in written_out(self.diffusion_model, how, partners, len(x), scale):
                stack.enter_context(mock.patch.object(module, "forward", replaced))
            return own(self, *every, *args, **kwargs)[: len(x)]

    with mock.patch.object(called, "forward", forward):
        yield


def _with(given: Any, first: list[int]) -> Any:
    """What goes with the rows, followed by what goes with the reference's."""
    if isinstance(given, dict):
        return {name: _with(one, first) for name, one in given.items()}
    return torch.cat([given, given[first]]) if isinstance(given, Tensor) else [_with(one, first) for one in given]


def noised(image: Image.Image, size: Sequence[int], t: Tensor, progress: float) -> Tensor:
    from k_diffusion.external import DiscreteSchedule

    from modules import sd_samplers_common, shared

    alphas = shared.sd_model.alphas_cumprod
    sigma = DiscreteSchedule(((1 - alphas) / alphas) ** 0.5, quantize=False).t_to_sigma(t[None].float())
    pixels = torch.from_numpy(np.asarray(image.resize((size[1] * 8, size[0] * 8), Image.Resampling.LANCZOS)) / 255.0)
    with torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(0)
        latent = sd_samplers_common.images_tensor_to_samples(pixels.permute(2, 0, 1)[None].float(), 0)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(SEED + round(progress * 1e6)))
    return (latent + sigma * noise) / (sigma**2 + 1) ** 0.5


def written_out(
    unet: nn.Module, how: str, partners: list[int], rows: int, scale: float
) -> Iterator[tuple[nn.Module, Any]]:
    """The modules to be replaced, each with its forward."""
    for path, module in unet.named_modules():
        if path.endswith("attn1") and (how == "shared" or path.startswith(SWAPPED_BLOCKS)):
            yield module, _attention(module, how, partners, rows, scale)
        if how == "shared" and isinstance(module, nn.GroupNorm):
            yield module, _norm(module, partners, rows, scale)


def _attention(attn1: Any, how: str, partners: list[int], rows: int, scale: float) -> Any:
    def forward(x: Tensor, context: None = None, mask: None = None, **_: Any) -> Tensor:
        q, k, v = (
            leaf(x).unflatten(-1, (attn1.heads, -1)).transpose(1, 2) for leaf in (attn1.to_q, attn1.to_k, attn1.to_v)
        )
        q_r, k_r, v_r = (one[partners] for one in (q, k, v))
        plain = _attend(q, k, v)
        if how == "swapped":
            looking = _attend(q, k_r, v_r)
        else:
            shift = torch.cat([torch.zeros(k.shape[2]), torch.full((k.shape[2],), math.log(2))])
            looking = _attend(_adain(q, q_r), torch.cat([_adain(k, k_r), k_r], 2), torch.cat([v, v_r], 2), shift)
        blended = torch.cat([plain[:rows] + scale * (looking - plain)[:rows], plain[rows:]])
        return attn1.to_out(blended.transpose(1, 2).flatten(-2))

    return forward


def _norm(norm: nn.GroupNorm, partners: list[int], rows: int, scale: float) -> Any:
    own = norm.forward

    def forward(x: Tensor) -> Tensor:
        plain, both = own(x), own(torch.cat([x, x[partners]], 2))[:, :, : x.shape[2]]
        return torch.cat([plain[:rows] + scale * (both - plain)[:rows], plain[rows:]])

    return forward


def _adain(x: Tensor, like: Tensor) -> Tensor:
    def deviation(one: Tensor) -> Tensor:
        return (one.var(2, keepdim=True) + 1e-5).sqrt()

    return (x - x.mean(2, keepdim=True)) / deviation(x) * deviation(like) + like.mean(2, keepdim=True)


def _attend(q: Tensor, k: Tensor, v: Tensor, shift: Tensor | None = None) -> Tensor:
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (logits + shift if shift is not None else logits).softmax(-1) @ v
