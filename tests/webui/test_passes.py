"""Sampling passes: which steps are styled, what a change of checkpoint does, and what is said when style is missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ..tiny import picture
from ..tiny.unets import sd15_unet
from .seen import farthest, hooks, same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111
from .formula import by_formula


def by_steps(web: A1111, first: int, last: int, **fields: Any) -> Any:
    """The job by the formula, styled in the denoiser's steps `first` to `last`, counted from 0."""
    now = []
    web.callbacks.registrar("cfg_denoiser")(lambda params: now.append(params.denoiser.step))
    with by_formula(web, acts=lambda: first <= now[-1] <= last):
        return web.plain(**fields)


@pytest.mark.parametrize(
    ("window", "first", "last"),
    [({}, 0, 4), ({"start": 0.4}, 2, 4), ({"end": 0.4}, 0, 1), ({"start": 0.3, "end": 0.5}, 2, 2)],
)
def test_a_unit_acts_from_its_start_to_its_end(web: A1111, window: dict[str, float], first: int, last: int) -> None:
    expected = by_steps(web, first, last, steps=5)
    assert farthest(web.generate(unit(**window), steps=5).images, expected.images) <= 1


def test_a_window_between_two_steps_is_refused_with_what_the_job_makes(web: A1111) -> None:
    refused = web.library("refusals").InstantStyleRefused
    with pytest.raises(refused, match=r"start 0.5 and end 0.6: this job makes 3 model calls") as caught:
        web.generate(unit(start=0.5, end=0.6))
    assert (caught.value.status_code, caught.value.detail["unit"], caught.value.detail["field"]) == (422, 1, "start")


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"enable_hr": True, "hr_second_pass_steps": 5}, "3 \\+ 5"),
        ({"enable_hr": True}, "3 \\+ 3"),
        ({"sampler_name": "Heun"}, "6"),
        ({"steps": 4}, "4"),
    ],
)
def test_the_model_calls_of_every_pass_are_counted(web: A1111, fields: dict[str, Any], counted: str) -> None:
    with pytest.raises(Exception, match=f"this job makes {counted} model calls"):
        web.generate(unit(start=0.99, end=0.995), **fields)


def test_img2img_counts_the_steps_it_takes(web: A1111) -> None:
    with pytest.raises(Exception, match="this job makes 7 model calls"):  # int(0.75 · 8) + 1
        web.generate(unit(start=0.99, end=0.995), tab="img2img", steps=8, init_images=[picture(1)])


def test_a_job_with_an_unknown_sampler_counts_its_steps(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.sd_samplers.find_sampler_config", lambda name: None)
    with pytest.raises(Exception, match="this job makes 3 model calls"):
        web.generate(unit(start=0.5, end=0.6))


def test_both_passes_of_a_hires_job_are_styled(web: A1111) -> None:
    fields: dict[str, Any] = {"enable_hr": True, "hr_second_pass_steps": 2}
    with by_formula(web):
        expected = web.plain(**fields)
    assert farthest(web.generate(unit(), **fields).images, expected.images) <= 1
    assert hooks(web) == 0


@pytest.mark.parametrize("passes", ["first", "hires"])
def test_a_unit_acts_in_the_pass_it_is_for(web: A1111, passes: str) -> None:
    now: list[bool] = []
    web.callbacks.registrar("cfg_denoiser")(lambda params: now.append(params.denoiser.p.is_hr_pass))
    with by_formula(web, acts=lambda: now[-1] is (passes == "hires")):
        expected = web.plain(enable_hr=True)
    styled = web.generate(unit(passes=passes), enable_hr=True)
    assert farthest(styled.images, expected.images) <= 1
    assert not styled.comments
    assert farthest(styled.images, web.generate(unit(), enable_hr=True).images) > 1


def test_img2img_is_styled(web: A1111) -> None:
    fields: dict[str, Any] = {"tab": "img2img", "init_images": [picture(1)]}
    with by_formula(web):
        expected = web.generate(**fields)
    styled = web.generate(unit(), **fields)
    assert farthest(styled.images, expected.images) <= 1
    assert farthest(styled.images, web.generate(**fields).images) > 20


@pytest.mark.parametrize("fields", [{"refiner": 0.5}, {"enable_hr": True, "hr_checkpoint": True}])
def test_the_style_follows_a_change_of_checkpoint(web: A1111, fields: dict[str, Any]) -> None:
    first, other = web.sd_model, web.checkpoint("other.safetensors")
    torch.manual_seed(1)
    other.model.diffusion_model.load_state_dict(first.model.diffusion_model.state_dict())
    other.model.diffusion_model.output_blocks[1][1].transformer_blocks[0].attn2.to_q.weight.data.mul_(3)
    swap = {"refiner": (0.5, other)} if "refiner" in fields else {"enable_hr": True, "hr_checkpoint": other}
    styled = web.generate(unit(), **swap)
    assert web.sd_model is other
    assert hooks(web) == 0
    web.sd_model = first
    assert hooks(web) == 0
    with by_formula(web):
        web.sd_model = other
        with by_formula(web):
            web.sd_model = first
            expected = web.plain(**swap)
    assert farthest(styled.images, expected.images) <= 1


def test_a_refiner_that_cannot_be_styled_ends_the_style_with_a_message(web: A1111) -> None:
    other = web.checkpoint("sd15.safetensors")
    other.model.forward = lambda x, t, c: x  # its picture does not matter
    other.model.diffusion_model = sd15_unet()
    p = web.job(unit(), refiner=(0.5, other), n_iter=2)
    shown = web.shown(p)
    assert "InstantStyle ended early in this picture" in shown
    assert "SD 1.5" in shown
    assert "InstantStyle ended early" in web.made.infotexts[-1]


def test_a_picture_after_one_that_ended_early_does_not_say_so(web: A1111) -> None:
    other, first = web.checkpoint("sd15.safetensors"), web.sd_model
    other.model.forward = lambda x, t, c: x
    other.model.diffusion_model = sd15_unet()

    def only_once(p: Any, *_: Any) -> None:
        p.refiner, web.sd_model = None, first

    web.add_neighbour(postprocess_image=only_once)
    texts = web.generate(unit(), refiner=(0.5, other), n_iter=2).infotexts[1:]
    assert ["ended early" in text for text in texts] == [True, False]


def test_a_picture_whose_style_ended_before_it_began_is_refused_whatever_the_one_before(web: A1111) -> None:
    other, first = web.checkpoint("sd15.safetensors"), web.sd_model
    other.model.forward = lambda x, t, c: x
    other.model.diffusion_model = sd15_unet()

    def swap_at_once(p: Any, *_: Any) -> None:
        p.refiner, web.sd_model = (0.0, other), first

    web.add_neighbour(postprocess_image=swap_at_once)
    with pytest.raises(web.library("refusals").InstantStyleRefused, match="ended before any reference's Start"):
        web.generate(unit(), n_iter=2)


def test_a_call_that_only_wakes_the_model_is_none_of_ours(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ControlNet's under --medvram."""
    alone, forward = web.generate(unit()), type(web.sd_model.model).forward
    monkeypatch.setattr(type(web.sd_model.model), "forward", lambda self, *args: forward(self, *args) if args else None)
    web.callbacks.registrar("cfg_denoiser")(lambda params: web.sd_model.model())
    p = web.job(unit())
    assert same(web.process(p).images, alone.images)
    assert not p.comments


def test_an_interrupted_picture_is_not_refused(web: A1111) -> None:
    web.add_neighbour(process_before_every_sampling=lambda p, **_: setattr(web.state, "interrupted", True))
    assert len(web.generate(unit()).images) == 1


def test_skipping_a_picture_styles_the_next(web: A1111) -> None:
    def skip(p: Any, **_: Any) -> None:
        web.state.skipped = p.iteration == 0

    alone = web.generate(unit(), n_iter=2)
    web.add_neighbour(process_before_every_sampling=skip)
    assert same(web.generate(unit(), n_iter=2).images[2:], alone.images[2:])


def unmarked_calls(web: A1111, count: int) -> Any:
    """A neighbour that calls the UNet itself, `count` times, before the first picture is made."""

    def call(params: Any) -> None:
        if params.denoiser.p.iteration == 0 and params.denoiser.step == 0:
            for _ in range(count):
                web.sd_model.model(params.x[:1], params.sigma[:1], {"crossattn": params.text_cond["crossattn"][:1]})

    return call


def test_calls_that_another_extension_made_are_told_once_for_their_picture(web: A1111) -> None:
    web.callbacks.registrar("cfg_denoiser")(unmarked_calls(web, 2))
    told = []

    def look(p: Any, pp: Any) -> None:
        told.append(list(p.comments))
        p.comments.clear()

    web.add_neighbour(postprocess_image=look)
    web.generate(unit(), n_iter=3)
    assert [len(comments) for comments in told] == [1, 0, 0]
    assert told[0][0].startswith("InstantStyle: 2 model calls were not styled")


def test_what_is_added_to_a_batch_by_hand_stays_plain(web: A1111) -> None:
    """A call whose rows nobody can tell apart: nothing is guessed."""
    plain, made = [], []
    x, sigma = torch.randn(1, 4, 8, 8), torch.ones(1)
    c = {"crossattn": torch.randn(1, 7, 32)}
    plain.append(web.sd_model.model(x, sigma, c))
    web.callbacks.registrar("cfg_denoiser")(lambda params: made.append(web.sd_model.model(x, sigma, c)))
    web.generate(unit())
    assert all(torch.equal(one, plain[0]) for one in made)


def test_after_an_error_while_sampling_nothing_is_held(web: A1111) -> None:
    job = web.library("job").live_job()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    broken = web.sd_model.model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        web.generate(unit())
    broken.remove()
    assert (job.owner, job.plans, hooks(web)) == (None, (), 0)
