"""Forge and its kin: rows by marks in the conditions, and all else that is another there than in AUTOMATIC1111's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from .seen import farthest, hooks, same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes.forge import Forge, ReForge
from .fakes.forge_model import Clip, Patcher
from .fakes.forge_sampling import calc_cond_uncond_batch
from .fakes.loading import module
from .formula import by_formula

LONGER, MUCH_LONGER = " ".join(["word"] * 12), " ".join(["word"] * 40)  # 3 chunks; 8: more than is repeated


@pytest.fixture(params=[Forge, ReForge])
def web(request: pytest.FixtureRequest, models: Path, tmp_path: Path) -> Iterator[Forge]:
    with request.param(models, tmp_path).running() as running:
        yield running
    assert not running.swallowed


def assert_by_formula(web: Forge, *units: Any, **fields: Any) -> None:
    """A styled job is the formula's, which tells rows by their text, and not a plain one."""
    styled, plain = web.generate(*(units or [unit()]), **fields), web.plain(**fields)
    with by_formula(web, fields.get("negative_prompt", "")):
        expected = web.plain(**fields)
    assert farthest(styled.images, expected.images) <= 1
    assert farthest(styled.images, plain.images) > 20


LAYOUTS: dict[str, dict[str, Any]] = {
    "one call": {},
    "a batch": {"batch_size": 2},
    "two batches": {"n_iter": 2},
    "a longer negative prompt": {"negative_prompt": LONGER, "batch_size": 2},
    "a call for each kind": {"negative_prompt": MUCH_LONGER},
    "several prompts": {"prompt": "a house AND a tree", "batch_size": 2},
    "no guidance": {"cfg_scale": 1},
    "two calls a step": {"sampler_name": "Heun"},
    "hires": {"enable_hr": True},
    "hires of a batch": {"enable_hr": True, "batch_size": 2},
}


@pytest.mark.parametrize("fields", LAYOUTS.values(), ids=LAYOUTS)
def test_rows_are_told_apart_in_every_layout(web: Forge, fields: dict[str, Any]) -> None:
    assert_by_formula(web, **fields)


@pytest.mark.parametrize("fields", [{}, {"batch_size": 2, "prompt": "a house AND a tree"}])
def test_rows_are_told_apart_where_memory_is_short(web: Forge, fields: dict[str, Any]) -> None:
    web.memory_is_short = True
    assert_by_formula(web, **fields)


def changing(web: Forge, **options: Any) -> None:
    """Another extension puts these into the patcher of every pass."""

    def change(p: Any, **_: Any) -> None:
        changed = web.sd_model.forge_objects.unet.clone()
        changed.model_options.update(options)
        web.sd_model.forge_objects.unet = changed

    web.add_neighbour(process_before_every_sampling=change)


def test_the_negative_prompt_in_the_place_of_the_prompt_gets_no_style(web: Forge) -> None:
    """As self-attention guidance and its like have it predicted once more."""

    def guide(web: Any, model: Any, out: Any, *given: Any) -> Any:
        _, uncond, *others = given
        again, _ = calc_cond_uncond_batch(web, model, (uncond, None), *others)
        return out + 0.5 * (out - again)

    def run(*units: Any) -> Any:
        return web.generate(*units, negative_prompt="a tree")

    changing(web, sampler_post_cfg_function=[guide])
    plain, styled = run(), run(unit())
    with by_formula(web, "a tree"):
        expected = run()
    assert farthest(styled.images, expected.images) <= 1
    assert farthest(styled.images, plain.images) > 20


def test_tiles_whose_rows_alternate_are_told_apart(web: Forge) -> None:
    """A tiler gives both kinds of each tile in turn: u c u c."""

    def tiled(apply: Any, given: dict[str, Any]) -> torch.Tensor:
        c, rows = given["c"], len(given["input"])
        more = {name: c[name].repeat(2, *[1] * (c[name].dim() - 1)) for name in ("c_crossattn", "y")}
        out = apply(given["input"].repeat(2, 1, 1, 1), given["timestep"].repeat(2), **{**c, **more})
        return (out[:rows] + out[rows:]) / 2

    changing(web, model_function_wrapper=tiled)
    plain, styled = web.generate(), web.generate(unit())
    with by_formula(web):
        expected = web.generate()
    assert farthest(styled.images, expected.images) <= 1
    assert farthest(styled.images, plain.images) > 20


def test_a_pass_marks_its_rows_once(web: Forge) -> None:
    counted: list[int] = []

    def count(params: Any) -> None:
        counted.append(len(web.sd_model.forge_objects.unet.model_options["conditioning_modifiers"]))

    web.callbacks.registrar("cfg_denoiser")(count)
    web.generate(unit())
    assert counted == [1, 1, 1]


def test_a_patcher_that_is_replaced_between_two_steps_is_marked_again(web: Forge) -> None:
    """As Forge Neo's refiner does with a LoRA, whose objects come from the checkpoint anew."""
    alone, own = web.generate(unit()), web.callbacks._registered["cfg_denoiser"]

    def replace(params: Any) -> None:
        web.sd_model.forge_objects.unet = Patcher(web.sd_model.forge_objects_original.unet.model)

    own.insert(0, replace)
    assert same(web.generate(unit()).images, alone.images)
    own.remove(replace)


def test_a_refiner_is_styled_from_its_first_step(web: Forge) -> None:
    web.load()
    other = web.checkpoint("refiner.safetensors")
    other.forge_objects.unet.model.load_state_dict(web.sd_model.forge_objects.unet.model.state_dict())
    alone, first = web.generate(unit()), web.sd_model
    assert same(web.generate(unit(), refiner=(0.5, other)).images, alone.images)
    assert hooks(web) == 0
    web.sd_model = first
    assert hooks(web) == 0


def test_nothing_is_left_behind(web: Forge) -> None:
    plain = web.plain()
    web.generate(unit())
    assert hooks(web) == 0
    assert same(web.generate().images, plain.images)
    assert same(web.generate(unit(weight=0)).images, plain.images)
    assert same(web.generate(unit(enabled=False)).images, plain.images)


def test_marks_that_nobody_reads_are_not_made(web: Forge) -> None:
    """A UNet takes no argument that it does not know."""
    alone, own = web.plain(), web.library("job").live_job()

    def take_hooks_out(p: Any, **_: Any) -> None:
        own.end()

    web.add_neighbour(process_before_every_sampling=take_hooks_out)
    with pytest.raises(web.library("refusals").InstantStyleRefused, match="Another job removed the style"):
        web.process(web.job(unit(), is_api=True))
    assert same(web.plain().images, alone.images)


def text(web: Forge) -> torch.Tensor:
    embeds: torch.Tensor = web.library("job").live_job().host.checkpoint_text_embeds(["a rabbit"])
    return embeds


def test_a_lora_of_the_prompt_stays_out_of_content_prompts(web: Forge) -> None:
    model = web.load()
    clean = text(web)
    model.forge_objects.clip = lora = Clip(networks=1)
    assert torch.equal(text(web), clean)
    assert model.forge_objects.clip is lora


def test_texts_outlive_inference_mode(web: Forge) -> None:
    with torch.inference_mode():
        made = text(web)
    assert not made.is_inference()


def test_an_embedding_in_a_content_prompt_is_no_part_of_a_jobs_infotext(web: Forge) -> None:
    web.word_embeddings["rabbit"] = SimpleNamespace(vec=torch.ones(1, 4))
    text(web)
    assert web.notes_now() == {}


def test_an_embedding_tells_texts_apart(web: Forge) -> None:
    host = web.library("job").live_job().host
    names = [host.checkpoint_name(["a rabbit"])]
    for value in (1.0, 2.0):
        web.word_embeddings["rabbit"] = SimpleNamespace(vec=torch.full((1, 4), value))
        names.append(host.checkpoint_name(["a rabbit"]))
    assert len(set(names)) == 3
    assert host.checkpoint_name(["a roof"]) == names[0]


def test_a_tokenizer_reads_html_as_open_clip_does(web: Forge) -> None:
    tokenize = web.library("job").live_job().host.tokenizer()
    assert tokenize is not None
    assert tokenize("a &amp;amp; b") == tokenize("a & b")


def test_the_first_job_may_be_a_styled_one_and_an_analysis_may_come_before_it(web: Forge) -> None:
    host = web.library("job").live_job().host
    assert host.text_width() == host.loaded_text_width()
    assert host.unet() is web.unet
    assert_by_formula(web)


def test_without_any_checkpoint_it_says_so(models: Path, tmp_path: Path) -> None:
    class Empty(Forge):
        def load(self) -> Any:
            raise ValueError("Failed to find available model...")

    with Empty(models, tmp_path).running() as web:
        host = web.library("job").live_job().host
        assert host.loaded_unet() is None
        with pytest.raises(Exception, match="No checkpoint is loaded"):
            host.unet()


def test_an_encoder_on_a_gpu_asks_for_room_and_for_no_flag_that_is_missing(
    web: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, asked = web.library("job").live_job().host, []
    devices, memory = web.modules()["modules.devices"], web.library("hosts.forge").memory_management()
    monkeypatch.setattr(web.library("hosts.webui_host").devices, "device", torch.device("cuda"))
    monkeypatch.setattr(memory, "free_memory", lambda *args: asked.append(args))
    assert host.encoder_device() == (torch.device("cuda"), torch.float16)
    with host.room_for_encoder():
        assert asked == [(4 << 30, torch.device("cuda"))]
    assert devices is not None


def test_a_unet_that_was_compiled_is_refused(web: Forge) -> None:
    model = web.load()
    model.forge_objects_original.unet.model.diffusion_model._orig_mod = torch.nn.Identity()
    p = web.job(unit(), is_api=True)
    with pytest.raises(web.library("refusals").InstantStyleRefused, match="without --torch-compile"):
        web.process(p)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_unet_that_passes_hooks_by_is_blamed_on_compiling_where_it_was_compiled(web: Forge, wrapped: bool) -> None:
    model = web.load().forge_objects_original.unet.model

    def compiled(p: Any, **_: Any) -> None:
        """As torch.compile puts it there: the UNet is called, its layers' hooks are not."""
        if wrapped:
            model.apply_model = partial(type(model).apply_model, model)
        web.unet.forward = lambda x, *args, **kwargs: x

    web.add_neighbour(process_before_every_sampling=compiled)
    with pytest.raises(web.library("refusals").InstantStyleRefused) as caught:
        web.process(web.job(unit(), is_api=True))
    assert ("torch.compile" in str(caught.value)) is wrapped
    assert "replaced its attention" in str(caught.value) or wrapped


def test_what_a_text_encoder_comes_from_is_in_the_checkpoints_name(
    web: Forge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Forge loads modules beside the checkpoint, Forge Classic has one chosen: other texts, another name."""
    host, sd_models = web.library("job").live_job().host, web.library("hosts.forge").sd_models
    names = [host.checkpoint_name(["a roof"])]
    for content in ("one", "two"):
        (tmp_path / f"{content}.safetensors").write_text(content)
        chosen = str(tmp_path / f"{content}.safetensors")
        beside = SimpleNamespace(sd_model=web.sd_model, forge_loading_parameters={"additional_modules": [chosen]})
        with monkeypatch.context() as patched:
            patched.setattr(sd_models, "model_data", beside, raising=False)
            names.append(host.checkpoint_name(["a roof"]))
        option = SimpleNamespace(te_info=SimpleNamespace(filename=chosen))
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, "modules.sd_text_encoder", module(current_text_encoder_option=option))
            names.append(host.checkpoint_name(["a roof"]))
    assert names[1] == names[2] != names[0]
    assert names[3] == names[4] not in names[:3]


# Where a job of the page is refused, and what is said.
def at_planning(web: Forge) -> tuple[dict[str, Any], str]:
    return unit(adapter="nothing"), "nothing"


def at_attaching(web: Forge) -> tuple[dict[str, Any], str]:
    web.library("job").StyleSession.attach = failing("out of memory")
    return unit(), "out of memory"


def at_a_step(web: Forge) -> tuple[dict[str, Any], str]:
    web.library("job").progress_at = failing("no clock")
    return unit(), "no clock"


def after_sampling(web: Forge) -> tuple[dict[str, Any], str]:
    def replace_sampling(p: Any, *_: Any, **kwargs: Any) -> None:
        p.sampler.sample = p.sampler.sample_img2img = lambda p, x, *_, **__: x

    web.add_neighbour(process_before_every_sampling=replace_sampling)
    return unit(), "did not reach the UNet"


def failing(message: str) -> Any:
    def fail(*_: Any) -> None:
        raise RuntimeError(message)

    return fail


@pytest.mark.parametrize("stage", [at_planning, at_attaching, at_a_step, after_sampling])
@pytest.mark.parametrize("fields", [{}, {"enable_hr": True}, {"batch_size": 2, "n_iter": 2}])
def test_a_refusal_is_seen_in_the_page_and_no_picture_comes(
    web: Forge, monkeypatch: pytest.MonkeyPatch, stage: Any, fields: dict[str, Any]
) -> None:
    monkeypatch.setattr("lib_instantstyle.style.session.StyleSession.attach", web.library("job").StyleSession.attach)
    wrong, message = stage(web)
    p, made = web.job(wrong, **fields), []
    web.add_neighbour(postprocess_image=lambda p, pp: made.append(pp.image))
    assert message in web.shown(p)
    assert made == []
    assert hooks(web) == 0


def test_any_error_in_sampling_is_seen_in_the_page(web: Forge) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    web.unet.forward = fail
    assert "out of memory" in web.shown(web.job(unit()))


def test_a_refusal_is_an_error_to_the_api(web: Forge) -> None:
    with pytest.raises(web.library("refusals").InstantStyleRefused) as caught:
        web.process(web.job(unit(adapter="nothing"), is_api=True))
    assert caught.value.status_code == 404
