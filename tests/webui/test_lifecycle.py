"""A job from its start to its end, and what other jobs do in between."""

from __future__ import annotations

import gc
import weakref
from copy import copy
from typing import Any

import pytest
import torch

from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.style.session import StyleSession

from .seen import farthest, hooks, same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111
from .fakes.processing import process_images
from .formula import by_formula


def test_a_unit_styles_its_job_alone_and_leaves_no_trace(web: A1111) -> None:
    plain, styled = web.plain(), web.generate(unit())
    assert not same(styled.images, plain.images)
    assert same(web.generate().images, plain.images)
    assert hooks(web) == 0


def test_a_unit_of_no_weight_changes_nothing(web: A1111) -> None:
    assert same(web.generate(unit(weight=0)).images, web.plain().images)


def test_the_same_job_gives_the_same_pictures(web: A1111) -> None:
    assert same(web.generate(unit()).images, web.generate(unit()).images)


LAYOUTS: dict[str, dict[str, Any]] = {
    "one call": {},
    "a batch": {"batch_size": 2},
    "two batches": {"n_iter": 2},
    "a call for each kind": {"negative_prompt": "a list of words that takes another chunk"},
    "several prompts": {"prompt": "a house AND a tree", "batch_size": 2},
    "two calls a step": {"sampler_name": "Heun"},
    "no negative prompt in some steps": {"s_min_uncond": 0.9},
}


@pytest.mark.parametrize("fields", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_are_told_apart_in_every_layout(web: A1111, fields: dict[str, Any]) -> None:
    styled, plain = web.generate(unit(), **fields), web.plain(**fields)
    with by_formula(web, fields.get("negative_prompt", "")):
        expected = web.plain(**fields)
    assert farthest(styled.images, expected.images) <= 1
    assert farthest(styled.images, plain.images) > 20


def test_a_foreign_job_in_between_is_not_styled_and_the_own_one_goes_on(web: A1111) -> None:
    alone, plain, made = web.generate(unit()), web.plain(), []
    web.add_neighbour(process_before_every_sampling=lambda p, **kwargs: made.append(web.plain()))
    p = web.job(unit())
    assert same(web.process(p).images, alone.images)
    assert same(made[0].images, plain.images)
    assert not p.comments  # the foreign calls are none of ours, and nothing to be told of


def test_a_foreign_job_after_the_last_pass_is_not_styled(web: A1111) -> None:
    plain, made = web.plain(), []
    web.add_neighbour(postprocess_image=lambda p, pp: made.append(web.plain()))
    web.generate(unit(), n_iter=2)
    assert len(made) == 2
    assert all(same(one.images, plain.images) for one in made)


def test_between_sampling_and_the_next_picture_the_model_is_bare(web: A1111) -> None:
    """Whatever works on the picture may call the UNet itself."""
    left: list[int] = []
    web.add_neighbour(postprocess_image=lambda p, pp: left.append(hooks(web)))
    web.generate(unit(), n_iter=2)
    assert left == [0, 0]


def test_a_refused_unit_ends_the_job_before_it_starts(web: A1111) -> None:
    refused, started = web.library("refusals").InstantStyleRefused, []
    web.add_neighbour(process_before_every_sampling=lambda p, **_: started.append(p))
    with pytest.raises(refused) as caught:
        web.generate(unit(adapter="nothing"))
    assert not started
    assert caught.value.status_code == 404
    assert caught.value.detail["field"] == "adapter"
    assert hooks(web) == 0
    assert same(web.generate().images, web.plain().images)


def test_an_error_while_hooks_are_put_in_place_ends_the_job(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lib_instantstyle.style.session.StyleSession.attach", fail)
    with pytest.raises(web.library("refusals").InstantStyleRefused, match="out of memory") as caught:
        web.generate(unit())
    assert caught.value.status_code == 500


def left_behind(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fails with some hooks in place, and that nobody closes."""
    attach, made = StyledLayer.attach, []

    def fail_at_the_second(self: StyledLayer) -> None:
        attach(self)
        made.append(self)
        if len(made) == 2:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(StyledLayer, "attach", fail_at_the_second)
    with pytest.raises(web.library("refusals").InstantStyleRefused):
        process_images(web.job(unit()))


def test_a_refused_pass_leaves_no_hook_behind(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(web, monkeypatch)
    assert hooks(web) == 0


def test_a_reload_of_the_page_takes_out_what_a_broken_job_left(web: A1111) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    broken = web.sd_model.model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        process_images(web.job(unit()))
    broken.remove()
    assert hooks(web) > 0
    web.reload_ui()
    assert hooks(web) == 0


def test_a_job_is_closed_as_without_us_and_let_go(web: A1111) -> None:
    p = web.job(unit())
    web.process(p)
    assert (p.sampler, p.c, p.uc) == (None, None, None)
    gone = weakref.ref(p)
    del p
    gc.collect()
    assert gone() is None


def test_references_are_computed_in_their_own_numbers(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    attach, cast = StyleSession.attach, []

    def look(self: StyleSession, plans: Any) -> None:
        cast.append(torch.is_autocast_cpu_enabled())
        attach(self, plans)

    monkeypatch.setattr(StyleSession, "attach", look)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        web.generate(unit())
    assert cast == [False]


def test_a_style_that_never_reached_the_unet_is_refused(web: A1111) -> None:
    def replace_sampling(p: Any, *_: Any, **kwargs: Any) -> None:
        p.sampler.sample = lambda p, x, conditioning, unconditional_conditioning: x

    web.add_neighbour(process_before_every_sampling=replace_sampling)
    with pytest.raises(web.library("refusals").InstantStyleRefused, match="did not reach the UNet") as caught:
        web.generate(unit())
    assert caught.value.status_code == 500


def test_an_error_while_a_step_is_prepared_ends_the_job(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.library("job"), "progress_at", lambda *_: 1 / 0)
    with pytest.raises(web.library("refusals").InstantStyleRefused, match="ZeroDivisionError"):
        web.generate(unit())


def test_a_job_that_took_the_style_away_is_noticed(web: A1111) -> None:
    web.add_neighbour(process_before_every_sampling=lambda p, **_: p.scripts.before_process(copy(p)))
    with pytest.raises(web.library("refusals").InstantStyleRefused, match="Another job removed the style"):
        web.generate(unit())


def test_a_script_that_winds_the_job_up_early_loses_no_style(web: A1111) -> None:
    """As ADetailer does before it works on a picture's faces."""
    alone = web.generate(unit(), n_iter=2)
    web.add_neighbour(postprocess_image=lambda p, pp: p.scripts.postprocess(copy(p), None))
    assert same(web.generate(unit(), n_iter=2).images, alone.images)
