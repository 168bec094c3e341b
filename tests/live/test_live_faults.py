"""An exception anywhere in our part of a WebUI job, at every step: an error, never a picture without its style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from live_world import as_base64, picture

UNIT = {"image": as_base64(picture(0)), "content_prompt": "a rabbit"}
STEPS = 3
SETTINGS = {"steps": STEPS}


class PlugError(RuntimeError):
    """What no handler of ours may expect."""


@contextmanager
def failing(owner: Any, name: str, call: int, error: type[Exception] = PlugError) -> Iterator[None]:
    """While it lasts, the method fails at its call of that number, counted from 1."""
    real, calls = getattr(owner, name), [0]

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise error("the plug was pulled")
        return real(*args, **kwargs)

    with mock.patch.object(owner, name, fail):
        yield
    assert calls[0] >= call, f"{name} was called {calls[0]} times"


def stages() -> dict[str, tuple[Any, str, tuple[int, ...]]]:
    """Where a job may fail: whose method, and at which of its calls; the style block has ten layers."""
    from lib_instantstyle.style.attention import StyledLayer
    from lib_instantstyle.style.session import StyleSession
    from lib_instantstyle.webui import job as a1111_job
    from lib_instantstyle.webui.hosts.live import live_host

    every_step = tuple(range(1, STEPS + 1))
    return {
        "planning": (StyleSession, "plan", (1,)),
        "keeping the picture": (type(a1111_job.live_job().host.picture_store), "put", (1,)),
        "infotext": (a1111_job, "to_infotext", (1,)),
        "attaching": (StyleSession, "attach", (1,)),
        "attaching a layer": (StyledLayer, "attach", (1, 5, 10)),
        "the text encoder": (type(live_host()), "checkpoint_text_embeds", (1,)),
        "on_cfg_denoiser": (a1111_job.StyleJob, "_mark", every_step),
        "the step clock": (a1111_job, "progress_at", every_step),
        "the marks": (a1111_job.StyleJob, "_read_rows", every_step),
        "the hooks on attention": (StyledLayer, "acting", (1, 11, 30)),
        "post_sample": (a1111_job.StyleJob, "check_applied", (1,)),
    }


NAMES = [
    *("planning", "keeping the picture", "infotext", "attaching", "attaching a layer", "the text encoder"),
    *("on_cfg_denoiser", "the step clock", "the marks", "the hooks on attention", "post_sample"),
]


@pytest.fixture(scope="module")
def undisturbed(webui):
    """A plain job and a styled one that never saw a fault."""
    return webui.txt2img(**SETTINGS), webui.txt2img(UNIT, **SETTINGS)


@pytest.fixture(autouse=True)
def nothing_kept():
    forget()


def forget():
    """Embeddings, keys and values of earlier jobs would keep a stage from being reached."""
    from lib_instantstyle.webui.job import live_job

    live_job().session._kept.clear()
    store = live_job().host.embed_store
    store._recent.clear()
    for path in store._folder.path.glob("text-*"):
        path.unlink()


def assert_unharmed(webui, undisturbed):
    plain, styled = undisturbed
    assert webui.txt2img(**SETTINGS).same_as(plain)
    assert webui.txt2img(UNIT, **SETTINGS).same_as(styled)
    assert not webui.hooks()


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_in_our_part_stops_the_job_and_harms_no_other(webui, undisturbed, name):
    owner, method, calls = stages()[name]
    for call in calls:
        forget()
        with failing(owner, method, call):
            job = webui.txt2img(UNIT, **SETTINGS)
        assert job.status == 500, f"call {call} of {method}: {job.status}"
        assert job.says("the plug was pulled")
        assert "images" not in job.answer
    assert_unharmed(webui, undisturbed)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, MemoryError])
def test_memory_that_runs_out_says_so_and_harms_no_other(webui, undisturbed, error):
    from lib_instantstyle.files.adapters import Adapter
    from lib_instantstyle.style import sums

    for owner, method, call in (
        (Adapter, "to_k_ip", 1),
        (sums, "stack", 1),
        (sums.KeyValueStack, "add_to", 7),
    ):
        with failing(owner, method, call, error):
            job = webui.txt2img({"image": as_base64(picture(call))}, **SETTINGS)
        assert job.status == 500
        assert "images" not in job.answer
    assert_unharmed(webui, undisturbed)


@pytest.mark.parametrize("name", ["end", "detach"])
def test_an_exception_while_clearing_up_costs_no_picture(webui, undisturbed, name):
    from lib_instantstyle.webui.job import StyleJob

    for call in (1, 2, 3):
        with failing(StyleJob, name, call):
            webui.txt2img(UNIT, **SETTINGS)
    assert_unharmed(webui, undisturbed)


def test_an_exception_in_measuring_costs_the_measure_only(webui, undisturbed):
    from lib_instantstyle.reference.analysis import Analyst

    with failing(Analyst, "measure", 1):
        job = webui.txt2img(UNIT, **SETTINGS, options={"instantstyle_measure": True})
    assert job.same_as(undisturbed[1])
    assert "measured" not in job.infotext
    assert_unharmed(webui, undisturbed)


def fail(*_: Any, **__: Any) -> None:
    raise PlugError("another script")


@pytest.mark.parametrize(
    "method", ["process", "process_before_every_sampling", "post_sample", "postprocess_image", "postprocess"]
)
def test_another_script_that_fails_costs_us_nothing(webui, undisturbed, method):
    from modules import scripts

    other = next(x for x in scripts.scripts_txt2img.alwayson_scripts if x.title() != "InstantStyle")
    with mock.patch.object(other, method, fail, create=True):
        job = webui.txt2img(UNIT, **SETTINGS)
    assert job.same_as(undisturbed[1])
    assert_unharmed(webui, undisturbed)


def test_a_style_that_ends_early_says_so_in_the_infotext(webui):
    """Clients of the API see no comments."""
    from lib_instantstyle.units.errors import IncompatibleModelError
    from lib_instantstyle.webui.hosts.live import live_host

    with failing(type(live_host()), "unet", 4, IncompatibleModelError):
        job = webui.txt2img(UNIT, **SETTINGS)
    assert job.status == 200
    assert "InstantStyle ended early: the plug was pulled" in job.infotext
    assert "ended early" not in webui.txt2img(UNIT, **SETTINGS).infotext


def test_a_job_that_takes_the_style_away_in_mid_picture_is_noticed(webui, undisturbed):
    """As a script that runs another job between two steps, or "Reload UI" meanwhile."""
    from lib_instantstyle.webui.job import live_job

    calls = []

    def take_away(module, args):
        calls.append(args)
        if len(calls) == 2:
            live_job().end()

    handle = webui.unet.register_forward_pre_hook(take_away)
    try:
        job = webui.txt2img(UNIT, **SETTINGS)
    finally:
        handle.remove()
    assert job.status == 500
    assert "removed the style" in job.answer["detail"]["message"]
    assert_unharmed(webui, undisturbed)


@pytest.mark.parametrize("looks", ["_analyse", "_follow"])
def test_an_exception_in_analysing_is_told_where_the_leak_meter_stands(webui, looks):
    from lib_instantstyle.reference.analysis import Analyst
    from lib_instantstyle.webui.panel.content_analysis import READ, ContentAnalysis

    chosen = {"image": picture(0), "adapter": "auto", "crop": "center"}
    read, steered = tuple(map(chosen.get, READ)), ("a rabbit", 0.5, "subtract", False)
    asked = {"_analyse": (lambda *_, **__: None, *read, *steered), "_follow": (read, *steered)}
    with failing(Analyst, {"_analyse": "analyse_until", "_follow": "meter"}[looks], 1):
        shown = getattr(ContentAnalysis, looks)(*asked[looks])
    meter = shown[1] if looks == "_analyse" else shown
    assert "PlugError: the plug was pulled" in meter["value"]
