"""Layers that are called for parts of the rows, and passes that lack the style: a job has it whole, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from .seen import hooks, same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111

Attention = Callable[..., Tensor]
HIRES: dict[str, Any] = {"enable_hr": True}
NEVER_REACHED = "did not reach the UNet"


@contextmanager
def computed(web: A1111, how: Callable[[Attention], Attention]) -> Iterator[None]:
    """While it lasts, `attn2.forward` is what `how` makes of it, in every layer."""
    layers = [one for name, one in web.sd_model.model.diffusion_model.named_modules() if name.endswith("attn2")]
    for layer in layers:
        layer.forward = how(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def by_row(own: Attention) -> Attention:
    def forward(x: Tensor, context: Tensor) -> Tensor:
        return torch.cat([own(row, rows_context) for row, rows_context in zip(x.split(1), context.split(1))])

    return forward


def last_row_first(own: Attention) -> Attention:
    def forward(x: Tensor, context: Tensor) -> Tensor:
        return torch.cat([own(x[row], context[row]) for row in (slice(1, None), slice(0, 1))][::-1])

    return forward


def first_row_only(own: Attention) -> Attention:
    def forward(x: Tensor, context: Tensor) -> Tensor:
        return own(x[:1], context[:1]).expand_as(x)

    return forward


Rewiring = Callable[[Attention], Attention]
LAYOUTS: dict[str, dict[str, Any]] = {
    "one call": {},
    "a batch": {"batch_size": 2},
    "no negative prompt in some steps": {"s_min_uncond": 0.9},
    "hires": HIRES,
}


@pytest.mark.parametrize("how", [by_row, last_row_first])
@pytest.mark.parametrize("fields", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_in_parts_change_nothing(
    web: A1111, fields: dict[str, Any], how: Callable[[Attention], Attention]
) -> None:
    """In double precision: sums over other shapes round otherwise, in single precision by 2e-3 after a hires pass."""
    web.sd_model.model.double()
    plain, styled = web.plain(**fields), web.generate(unit(), **fields)
    with computed(web, how):
        assert same(web.plain(**fields).images, plain.images)
        assert same(web.generate(unit(), **fields).images, styled.images)


@pytest.mark.parametrize("fields", LAYOUTS.values(), ids=LAYOUTS)
def test_a_row_left_out_ends_the_job_and_is_forgotten(web: A1111, fields: dict[str, Any]) -> None:
    plain, styled = web.plain(**fields), web.generate(unit(), **fields)
    with (
        computed(web, first_row_only),
        pytest.raises(web.library("job").InstantStyleRefused, match=f"computed by {__name__}") as caught,
    ):
        web.generate(unit(), **fields)
    assert caught.value.status_code == 500
    assert same(web.generate(**fields).images, plain.images)
    assert hooks(web) == 0
    assert same(web.generate(unit(), **fields).images, styled.images)


def test_a_row_left_out_outside_the_window_does_no_harm(web: A1111) -> None:
    swapped: list[Any] = []

    def from_the_second_step_on(p: Any, **_: Any) -> None:
        layer = web.sd_model.model.diffusion_model.get_submodule("output_blocks.1.1.transformer_blocks.0.attn2")
        own = layer.forward
        layer.forward = lambda x, context: (own if p.sampler.model_wrap_cfg.step == 0 else first_row_only(own))(
            x, context
        )
        swapped.append(layer)

    web.add_neighbour(process_before_every_sampling=from_the_second_step_on)
    web.generate(unit(end=0.3))
    del swapped[0].forward


def test_an_error_that_another_extension_swallows_is_still_told(web: A1111) -> None:
    root = web.sd_model.model.diffusion_model
    own = root.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        try:
            return own(x, *args, **kwargs)
        except Exception:
            return x

    root.forward = forward
    try:
        with (
            computed(web, first_row_only),
            pytest.raises(web.library("job").InstantStyleRefused, match="1 of the 2 rows"),
        ):
            web.generate(unit(), steps=1)
    finally:
        del root.forward


def test_marks_that_do_not_fit_the_rows_end_the_job(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    def mark_too_many(params: Any) -> None:
        params.text_cond["instantstyle_rows"] = torch.ones(2, 1)

    web.callbacks.registrar("cfg_denoiser")(mark_too_many)
    with pytest.raises(web.library("job").InstantStyleRefused, match="had 2 rows, but marks for 3"):
        web.generate(unit())


@pytest.mark.parametrize(("in_hires", "steps"), [(False, 0), (True, 0), (True, 2)])
def test_a_pass_whose_sampling_was_replaced_is_refused(web: A1111, in_hires: bool, steps: int) -> None:
    def replace_sampling(p: Any, **_: Any) -> None:
        if p.is_hr_pass is in_hires:
            p.sampler.sample = p.sampler.sample_img2img = lambda p, x, *args, **kwargs: x

    web.add_neighbour(process_before_every_sampling=replace_sampling)
    with pytest.raises(web.library("job").InstantStyleRefused, match=NEVER_REACHED):
        web.generate(unit(), **HIRES, hr_second_pass_steps=steps)


@pytest.mark.parametrize("in_hires", [False, True])
def test_a_pass_whose_attention_was_replaced_is_refused(web: A1111, in_hires: bool) -> None:
    """As by a compiled UNet, which passes over every hook inside."""
    root = web.sd_model.model.diffusion_model

    def replace_unet(p: Any, **_: Any) -> None:
        if p.is_hr_pass is in_hires:
            root.forward = lambda x, *args, **kwargs: x
        elif "forward" in vars(root):
            del root.forward

    web.add_neighbour(process_before_every_sampling=replace_unet)
    try:
        with pytest.raises(web.library("job").InstantStyleRefused, match=NEVER_REACHED):
            web.generate(unit(), **HIRES)
    finally:
        vars(root).pop("forward", None)


def test_a_window_that_only_one_pass_reaches_is_no_error(web: A1111) -> None:
    plain = web.plain(**HIRES, steps=1, hr_second_pass_steps=4)
    styled = web.generate(unit(start=0.5), **HIRES, steps=1, hr_second_pass_steps=4)
    assert not same(styled.images, plain.images)


def test_a_hires_pass_of_one_step_may_make_no_call(web: A1111) -> None:
    def make_none(p: Any, **_: Any) -> None:
        if p.is_hr_pass:
            p.sampler.sample_img2img = lambda p, x, *args, **kwargs: x

    web.add_neighbour(process_before_every_sampling=make_none)
    web.generate(unit(), **HIRES, hr_second_pass_steps=1)


def test_each_picture_is_looked_at_by_itself(web: A1111) -> None:
    def replace_sampling(p: Any, **_: Any) -> None:
        if p.iteration == 1:
            p.sampler.sample = lambda p, x, *args, **kwargs: x

    web.add_neighbour(process_before_every_sampling=replace_sampling)
    with pytest.raises(web.library("job").InstantStyleRefused, match=NEVER_REACHED):
        web.generate(unit(), n_iter=2)
