"""Sharing, swapping and guarding equal the formulas written out, on a whole UNet whose batch holds the reference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lib_instantstyle.style.rows import ModelCall
from lib_instantstyle.style.self_attention import Attending, PooledNorm, ReferenceRows, ReferredLayer, adain
from lib_instantstyle.units.schedule import Window

from ..tiny import sdxl_unet, unet_inputs

JOB = (True, True, False, False)  # two pictures with guidance, as the WebUI orders rows
HALVES = (False, True)  # of the two rows of the reference that come after them
PARTNERS = [5, 5, 4, 4]  # the reference's row for each row of the job
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


class WrittenOut:
    """diffusers' attention processor with a formula for the first rows; the last two are the reference's."""

    def __init__(self, how: str, scale: float = 1.0, halves: tuple[bool, ...] = (True, False)) -> None:
        self.how, self.scale, self.halves = how, scale, halves

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs: Any) -> Tensor:
        q, k, v = (
            leaf(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for leaf in (attn.to_q, attn.to_k, attn.to_v)
        )
        plain = attend(q, k, v)
        looking = attend(*self.seen(q, k, v)[:3], shift=self.seen(q, k, v)[3])
        acts = torch.tensor([half in self.halves for half in JOB])[:, None, None, None]
        job = torch.where(acts, plain[:4] + self.scale * (looking - plain[:4]), plain[:4])
        return attn.to_out[0](torch.cat([job, plain[4:]]).transpose(1, 2).flatten(-2))

    def seen(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        q_r, k_r, v_r = (x[PARTNERS] for x in (q, k, v))
        q, k, v = q[:4], k[:4], v[:4]
        if self.how == "swapped":
            return q, k_r, v_r, None
        if self.how == "query":
            return q_r, k, v, None
        shift = torch.cat([torch.zeros(k.shape[2]), torch.full((k.shape[2],), math.log(2))])
        return by_heads(q, q_r), torch.cat([by_heads(k, k_r), k_r], 2), torch.cat([v, v_r], 2), shift


def by_heads(x: Tensor, like: Tensor) -> Tensor:
    def deviation(y: Tensor) -> Tensor:
        return (y.var(2, keepdim=True) + 1e-5).sqrt()

    centred = (x - x.mean(2, keepdim=True)) / deviation(x)
    return centred * deviation(like) + like.mean(2, keepdim=True)


def attend(q: Tensor, k: Tensor, v: Tensor, shift: Tensor | None = None) -> Tensor:
    logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (logits + shift if shift is not None else logits).softmax(-1) @ v


def inputs(rows: int = 6) -> dict[str, Any]:
    made = tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, unet_inputs(rows))
    assert isinstance(made, dict)
    return made


def some(every: dict[str, Any], index: slice) -> dict[str, Any]:
    return tree_map_only(Tensor, lambda x: x[index] if x.dim() else x, every)  # type: ignore[no-any-return]


def attn1_of(unet: nn.Module) -> list[Any]:
    return [module for path, module in unet.named_modules() if path.endswith("attn1")]


@contextmanager
def referring(layers: list[Any]) -> Iterator[None]:
    for layer in layers:
        layer.attach()
    try:
        yield
    finally:
        for layer in layers:
            layer.detach()


@torch.no_grad()
def two_passes(unet: UNet2DConditionModel, layers: list[Any], reference: ReferenceRows, call: ModelCall) -> Tensor:
    """The reference's rows by themselves, then the job's."""
    every = inputs()
    with referring(layers):
        call.cond_rows, reference.writing = None, True
        unet(**some(every, slice(4, 6)))
        call.cond_rows, reference.writing = JOB, False
        found: Tensor = unet(**some(every, slice(0, 4))).sample
    return found


@pytest.mark.parametrize("scale", [1.0, 0.6, 1.5])
@pytest.mark.parametrize("how", ["shared", "swapped", "query"])
@torch.no_grad()
def test_a_whole_unet_equals_the_formula(how: str, scale: float) -> None:
    unet, written = sdxl_unet().double(), sdxl_unet().double()
    rows = {"query": (False,), "swapped": (True,)}.get(how, (True, False))
    reference, call = ReferenceRows(HALVES), ModelCall(progress=0.5)
    units = (Attending(how, scale, Window(), reference, rows),)
    ours = two_passes(unet, [ReferredLayer(attn1, units, call) for attn1 in attn1_of(unet)], reference, call)
    for attn1 in attn1_of(written):
        attn1.set_processor(WrittenOut(how, scale, rows))
    torch.testing.assert_close(ours, written(**inputs()).sample[:4], **CLOSE)
    assert not torch.allclose(ours, unet(**some(inputs(), slice(0, 4))).sample)


@torch.no_grad()
def test_two_units_add_up() -> None:
    unet = sdxl_unet().double()
    (attn1, *_), call = attn1_of(unet), ModelCall(progress=0.5)
    x, other = torch.randn(4, 9, attn1.to_q.in_features).double(), torch.randn(2, 9, attn1.to_q.in_features).double()

    def output(*units: tuple[str, float]) -> Tensor:
        reference = ReferenceRows(HALVES)
        layer = ReferredLayer(attn1, tuple(Attending(how, s, Window(), reference) for how, s in units), call)
        with referring([layer]):
            call.cond_rows, reference.writing = None, True
            attn1(other)
            call.cond_rows, reference.writing = JOB, False
            found: Tensor = attn1(x)
        return found

    plain = attn1(x)
    expected = plain + 0.5 * (output(("swapped", 1.0)) - plain) + 0.3 * (output(("shared", 1.0)) - plain)
    torch.testing.assert_close(output(("swapped", 0.5), ("shared", 0.3)), expected, **CLOSE)
    torch.testing.assert_close(output(("shared", 0.3), ("swapped", 0.5)), expected, **CLOSE)


@torch.no_grad()
def test_a_row_that_is_the_reference_does_not_change() -> None:
    unet = sdxl_unet().double()
    reference, call = ReferenceRows((True,)), ModelCall(progress=0.5)
    units = (Attending("shared", 1.0, Window(), reference),)
    norms = [PooledNorm(module, units, call) for module in unet.modules() if isinstance(module, nn.GroupNorm)]
    layers: list[Any] = [*norms, *(ReferredLayer(attn1, units, call) for attn1 in attn1_of(unet))]
    one = some(inputs(), slice(0, 1))
    plain = unet(**one).sample
    with referring(layers):
        reference.writing = True
        unet(**one)
        call.cond_rows, reference.writing = (True,), False
        torch.testing.assert_close(unet(**one).sample, plain, **CLOSE)


@torch.no_grad()
def test_pooled_norms_equal_normalising_both_as_one_picture() -> None:
    norm = nn.GroupNorm(4, 8).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x, other = torch.randn(4, 8, 6, 6).double(), torch.randn(2, 8, 6, 6).double()
    reference, call = ReferenceRows(HALVES), ModelCall(progress=0.5)
    pooled = PooledNorm(norm, (Attending("shared", 1.0, Window(), reference),), call)
    expected = norm(torch.cat([x, other[[1, 1, 0, 0]]], 2))[:, :, :6]
    with referring([pooled]):
        call.cond_rows, reference.writing = None, True
        norm(other)
        call.cond_rows, reference.writing = JOB, False
        torch.testing.assert_close(norm(x), expected, **CLOSE)


@torch.no_grad()
def test_in_a_batch_the_first_picture_leads_and_stays_as_it_is() -> None:
    unet = sdxl_unet().double()
    attn1, call = attn1_of(unet)[0], ModelCall(JOB, progress=0.5)
    x = torch.randn(4, 9, attn1.to_q.in_features).double()
    plain = attn1(x)
    layer = ReferredLayer(attn1, (Attending("shared", 1.0, Window(), ReferenceRows(leads=True)),), call)
    with referring([layer]):
        styled = attn1(x)
    torch.testing.assert_close(styled[[0, 2]], plain[[0, 2]], **CLOSE)
    assert not torch.allclose(styled[[1, 3]], plain[[1, 3]])


@torch.no_grad()
def test_nothing_happens_outside_the_window_or_in_calls_of_others_and_nothing_stays() -> None:
    unet = sdxl_unet()
    attn1, call = attn1_of(unet)[0], ModelCall(JOB, progress=0.2)
    x = torch.randn(4, 9, attn1.to_q.in_features)
    plain = attn1(x)
    layer = ReferredLayer(attn1, (Attending("shared", 1.0, Window(0.5, 1.0), ReferenceRows(leads=True)),), call)
    with referring([layer]):
        assert torch.equal(attn1(x), plain)
        call.progress = 0.7
        assert not torch.equal(attn1(x), plain)
        call.cond_rows = None
        assert torch.equal(attn1(x), plain)
    call.cond_rows = JOB
    assert torch.equal(attn1(x), plain)


def test_adain_takes_over_mean_and_deviation() -> None:
    x, like = torch.randn(2, 50, 3).double(), 3 + 2 * torch.randn(2, 50, 3).double()
    found = adain(x, like)
    torch.testing.assert_close(found.mean(1), like.mean(1))
    torch.testing.assert_close(found.std(1), like.std(1), rtol=1e-4, atol=1e-4)
