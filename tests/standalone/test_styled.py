"""Styling a real diffusers pipeline: what reaches which rows and steps, and that nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    HeunDiscreteScheduler,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLImg2ImgPipeline,
    T2IAdapter,
)
from PIL import Image

from lib_instantstyle.standalone import Job, StandaloneHost
from lib_instantstyle.standalone.unet_calls import rows_of_batch
from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.units.errors import (
    IncompatibleModelError,
    InstantStyleError,
    StyleNotAppliedError,
    TextTowerNotFoundError,
    UnitError,
)
from lib_instantstyle.units.infotext import units_in

from ..jobs import unit
from ..tiny import picture
from ..tiny.pipelines import SIDE, tiny_pipeline

TOLERANCE = 2e-5  # of pictures in 0..1, float32: a batch sums in another order than a single run
ORIGINAL = {"preset": "original"}
Jobs = Callable[..., Job]


def drawn(pipe: Any, prompt: Any = "a cat on the roof", **fields: Any) -> np.ndarray:
    """Pictures as floats in 0..1."""
    given = {"num_inference_steps": 2, "width": SIDE, "height": SIDE, "output_type": "np", **fields}
    count = (len(prompt) if isinstance(prompt, list) else 1) * given.get("num_images_per_prompt", 1)
    generators = given.pop("seeds", range(count))
    return pipe(prompt, generator=[torch.Generator().manual_seed(seed) for seed in generators], **given).images


def pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(float) / 255


def test_style_shows_and_everything_is_taken_out_again(host: StandaloneHost) -> None:
    plain = drawn(host.pipe)
    with host.styled([unit(**ORIGINAL)]) as pipe:
        assert pipe is host.pipe
        styled = drawn(pipe)
    assert np.abs(styled - plain).max() > 0.02
    assert np.array_equal(drawn(host.pipe), plain)
    hooks = [m for m in host.unet().modules() if m._forward_hooks or m._forward_pre_hooks]
    assert (hooks, host.session.attached_to, host.session.call.cond_rows) == ([], None, None)


@pytest.mark.parametrize("units", [[], [unit(weight=0.0)], [unit(enabled=False)]])
def test_without_weight_no_bit_changes(host: StandaloneHost, units: list[Any]) -> None:
    plain = drawn(host.pipe)
    with host.styled(units):
        assert np.array_equal(drawn(host.pipe), plain)


def test_an_error_inside_takes_the_style_out(host: StandaloneHost) -> None:
    plain = drawn(host.pipe)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), host.styled([unit()]):
        drawn(host.pipe, callback_on_step_end=fail)
    assert host.session.attached_to is None
    assert np.array_equal(drawn(host.pipe), plain)


def test_an_error_while_attaching_leaves_nothing(host: StandaloneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    attached: list[StyledLayer] = []
    attach = StyledLayer.attach

    def fail_at_the_second(layer: StyledLayer) -> None:
        attach(layer)
        attached.append(layer)
        if len(attached) == 2:
            raise RuntimeError

    monkeypatch.setattr(StyledLayer, "attach", fail_at_the_second)
    with pytest.raises(RuntimeError), host.styled([unit()]):
        pass
    assert len(attached) == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in host.unet().modules())


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_prompts_and_pictures_of_a_batch_equal_single_runs(host: StandaloneHost, guidance: float) -> None:
    prompts = ["a cat on the roof", "a red rabbit"]
    with host.styled([unit(**ORIGINAL), unit(image=(picture(3),), preset="layout")]):
        together = drawn(host.pipe, prompts, num_images_per_prompt=2, guidance_scale=guidance)
        alone = [
            drawn(host.pipe, prompt, seeds=[seed], guidance_scale=guidance)
            for prompt, seeds in zip(prompts, ((0, 1), (2, 3)))
            for seed in seeds
        ]
    assert np.abs(together - np.concatenate(alone)).max() <= TOLERANCE


def test_conditional_rows_alone_see_the_picture_of_a_base_adapter(host: StandaloneHost) -> None:
    """Guidance cut off in mid-run, as pipelines allow in a step callback, leaves conditional rows only."""
    seen: list[tuple[bool, ...] | None] = []

    def end_guidance(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe._guidance_scale = 1.0
        return {name: tensor.chunk(2)[-1] for name, tensor in tensors.items()}

    with host.styled([unit()]):
        hook = host.unet().register_forward_hook(lambda *_: seen.append(host.session.call.cond_rows))
        names = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
        drawn(host.pipe, callback_on_step_end=end_guidance, callback_on_step_end_tensor_inputs=names)
        hook.remove()
    assert seen == [(False, True), (True,)]


def test_rows_are_halved_or_refused() -> None:
    assert rows_of_batch(4, guided=True) == (False, False, True, True)
    assert rows_of_batch(3, guided=False) == (True, True, True)
    with pytest.raises(IncompatibleModelError, match="3"):
        rows_of_batch(3, guided=True)


def test_the_step_clock_runs_over_the_calls_of_each_pass(host: StandaloneHost) -> None:
    clock: list[float] = []
    with host.styled([unit()]):
        hook = host.unet().register_forward_hook(lambda *_: clock.append(host.session.call.progress))
        drawn(host.pipe, num_inference_steps=4)
        drawn(host.pipe, num_inference_steps=2)
        hook.remove()
    assert clock == [0, 0.25, 0.5, 0.75, 0, 0.5]


def test_the_step_clock_counts_model_calls_of_a_second_order_scheduler(host: StandaloneHost) -> None:
    clock: list[float] = []
    given = {**host.pipe.components, "scheduler": HeunDiscreteScheduler()}
    pipe = type(host.pipe)(**given, add_watermarker=False)
    with host.styled([unit()], pipe):
        hook = host.unet().register_forward_hook(lambda *_: clock.append(host.session.call.progress))
        drawn(pipe, num_inference_steps=3)
        hook.remove()
    assert clock == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_a_window_styles_its_steps_alone(host: StandaloneHost) -> None:
    added: list[int] = []
    with host.styled([unit(start=0.5)]):
        hook = host.unet().register_forward_hook(lambda *_: added.append(host.session.call.styled))
        drawn(host.pipe, num_inference_steps=4)
        hook.remove()
    assert added == [0, 0, 2, 4]  # the block's two layers in each of two calls


def test_img2img_and_controlnet_are_styled(host: StandaloneHost, job: Jobs) -> None:
    plain_of: dict[str, Any] = {}
    for fields in ({"init": picture(1)}, {"control": picture(2)}, {"init": picture(1), "control": picture(2)}):
        made = job(steps=3, count=2, at_once=2, **fields)
        styled = pixels(host.generate(Job(**{**vars(made), "units": (unit(**ORIGINAL, weight=3.0),)})))
        plain = pixels(host.generate(made))
        zero = pixels(host.generate(Job(**{**vars(made), "units": (unit(weight=0.0),)})))
        assert styled.shape == (2, SIDE, SIDE, 3)
        assert np.abs(styled - plain).max() > 0
        assert np.array_equal(zero, plain)
        plain_of[",".join(fields)] = plain
    assert len({plain.tobytes() for plain in plain_of.values()}) == 3


def test_variants_share_the_models_and_leave_them_as_they_are(host: StandaloneHost, job: Jobs) -> None:
    variant = host.pipeline(job(init=picture()))
    assert isinstance(variant, StableDiffusionXLImg2ImgPipeline)
    assert variant.unet is host.unet()
    assert variant.config.force_zeros_for_empty_prompt == host.pipe.config.force_zeros_for_empty_prompt
    assert host.pipeline(job(init=picture())) is variant


def test_pictures_of_a_job_depend_on_their_own_seed_alone(host: StandaloneHost, job: Jobs) -> None:
    units = (unit(**ORIGINAL),)
    three = pixels(host.generate(job(units=units, count=3, at_once=2, seed=5)))
    alone = pixels(host.generate(job(units=units, seed=7)))
    assert np.abs(three[2] - alone[0]).max() <= 1 / 255  # a rounding of eight bits
    assert np.abs(three[1] - alone[0]).max() > 0.02


def test_pictures_say_how_they_were_made(host: StandaloneHost, job: Jobs) -> None:
    (made,) = host.generate(job(units=(unit(content_prompt="a rabbit, red"),), seed=3, negative="blur"))
    text = made.info["parameters"]
    assert text.startswith("a cat on the roof\nNegative prompt: blur\nSteps: 2, CFG scale: 5.0, Seed: 3, Size: 64x64, ")
    quoted = text.partition("InstantStyle 1: ")[2]
    line = json.JSONDecoder().raw_decode(quoted)[0]
    assert units_in({"InstantStyle 1": line})[1]["content_prompt"] == "a rabbit, red"


REFUSED = [
    ({"steps": 0}, "steps"),
    ({"count": 0}, "count"),
    ({"width": 70}, "width"),
    ({"width": None}, "width"),
    ({"init": picture(), "strength": 0.0}, "strength"),
    ({"init": picture(), "strength": 0.3}, "strength"),
    ({"units": (unit(start=0.6, end=0.9),)}, "start"),
    ({"units": (unit(image=()),)}, "image"),
]


@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_jobs_that_cannot_be_honoured_are_refused(
    host: StandaloneHost, job: Jobs, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(UnitError) as caught:
        host.generate(job(**fields))
    assert caught.value.field == field
    assert host.session.attached_to is None


def test_model_calls_are_counted_by_the_schedulers_order(job: Jobs) -> None:
    assert (job(steps=5).model_calls(1), job(steps=5).model_calls(2)) == (5, 9)
    assert job(steps=5, init=picture(), strength=0.6).model_calls(2) == 5


def test_a_control_picture_without_a_controlnet_is_refused(host: StandaloneHost, job: Jobs) -> None:
    host.controlnet = None
    with pytest.raises(InstantStyleError, match="--controlnet"):
        host.generate(job(control=picture()))


def test_styles_do_not_nest(host: StandaloneHost) -> None:
    plain = drawn(host.pipe)
    with host.styled([unit()]):
        with pytest.raises(InstantStyleError, match="one list"), host.styled([unit()]):
            pass
        assert not np.array_equal(drawn(host.pipe), plain)


def test_a_style_that_reaches_nothing_is_an_error(host: StandaloneHost) -> None:
    def draw_without_hooks() -> None:
        with host.styled([unit()]):
            for layer in host.session._layers:
                layer.detach()
            drawn(host.pipe)

    with pytest.raises(StyleNotAppliedError):
        draw_without_hooks()


def test_a_pipeline_with_a_t2i_adapter_is_styled(host: StandaloneHost) -> None:
    """It says nothing of its number of timesteps; they are all of the scheduler's."""
    torch.manual_seed(0)
    sizes = {"channels": [8, 16, 32, 32], "num_res_blocks": 1, "downscale_factor": 8}
    pipe = StableDiffusionXLAdapterPipeline(
        **host.pipe.components, adapter=T2IAdapter(**sizes, adapter_type="full_adapter_xl")
    )
    pipe.set_progress_bar_config(disable=True)
    control, clock = picture(2, (SIDE, SIDE)), []
    plain = drawn(pipe, image=control)
    with host.styled([unit(**ORIGINAL)], pipe):
        hook = host.unet().register_forward_hook(lambda *_: clock.append(host.session.call.progress))
        styled = drawn(pipe, image=control)
        hook.remove()
    assert np.abs(styled - plain).max() > 0.02
    assert clock == [0, 0.5]
    assert np.abs(plain - drawn(host.pipe)).max() > 0  # the T2I-Adapter acts, too


def test_pipelines_that_cannot_be_read_are_refused(host: StandaloneHost, tmp_path: Any) -> None:
    other = tiny_pipeline(tmp_path, seed=1)
    with pytest.raises(IncompatibleModelError, match="not the host"), host.styled([unit()], other):
        pass
    compiled = SimpleNamespace(unet=SimpleNamespace(_orig_mod=None))
    with pytest.raises(IncompatibleModelError, match="compiled"):
        StandaloneHost(compiled, [], [])
    perturbed = type("StableDiffusionXLPAGPipeline", (), {"unet": host.unet()})()
    with pytest.raises(IncompatibleModelError, match="neither conditional nor unconditional"):
        StandaloneHost(perturbed, [], [])


def test_a_pipeline_without_its_second_text_encoder_refuses_content_only(host: StandaloneHost) -> None:
    parts = {**host.pipe.components, "text_encoder_2": None}
    folders = host.files.adapter_folders(), host.files.encoder_folders()
    bare = StandaloneHost(type(host.pipe)(**parts, add_watermarker=False), *folders)
    assert bare.session.plan([unit()])
    with pytest.raises(TextTowerNotFoundError) as caught:
        bare.session.plan([unit(content_prompt="a rabbit")])
    assert caught.value.field == "content_prompt"
