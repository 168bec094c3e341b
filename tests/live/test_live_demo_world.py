"""The world's trained checkpoint in the real WebUI: pictures that show what was asked for, in the reference's style."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from live_world import PROJECT, as_base64, from_base64

pytest.importorskip("diffusers", reason="the world's checkpoint is written with diffusers, which this Python lacks")
SIDE = {"width": 128, "height": 128, "steps": 14, "cfg_scale": 3, "batch_size": 6}
SOME = 3  # of six pictures; so small a model draws two in three as it was asked to
STYLE = {"preset": "style"}


@pytest.fixture(scope="module")
def trained(webui, world) -> Iterator[Any]:
    """The world's files among the WebUI's models, and its checkpoint loaded."""
    sys.path.insert(0, str(PROJECT))
    from demo.world import export
    from modules import sd_models

    files = export.write(world.folder / "models")
    sd_models.list_models()
    yield files
    for path in (files.adapter, files.checkpoint, files.encoder / "model.safetensors"):
        path.unlink()
    sd_models.list_models()


@pytest.fixture(scope="module")
def scene() -> Any:
    from demo.world.scenes import Scene

    return Scene("cat", "centre", "large", "fire", "hatched", seed=4)


def job(webui, trained, scene, *units: dict[str, Any], **settings: Any) -> list[Any]:
    """What the judge says of a job's pictures."""
    from demo.world.drawing import draw
    from demo.world.judge import trained_judge

    full = [{"image": as_base64(draw(scene)), "adapter": trained.adapter.stem, **unit} for unit in units]
    options = {"sd_model_checkpoint": trained.checkpoint.name}
    done = webui.txt2img(*full, options=options, **{**SIDE, "prompt": "a house", **settings})
    assert done.status == 200, done.answer
    assert not webui.hooks()
    return trained_judge().judge([from_base64(one) for one in done.answer["images"]])


def test_the_prompt_alone_draws_the_prompt(webui, trained, scene) -> None:
    shown = job(webui, trained, scene)
    assert sum(one.subject == "house" for one in shown) >= SOME
    assert sum(one.palette == scene.palette for one in shown) < SOME


def test_style_crosses_over_and_the_references_subject_does_not(webui, trained, scene) -> None:
    shown = job(webui, trained, scene, STYLE)
    assert sum(one.palette == scene.palette for one in shown) >= SOME
    assert sum(one.subject == "house" for one in shown) >= SOME
    assert sum(one.subject == scene.subject for one in shown) < SOME


def test_the_content_is_named_by_the_checkpoints_own_text_encoder(webui, trained, scene) -> None:
    unit = {**STYLE, "content_prompt": "a cat", "content_method": "project", "content_scale": 1.0}
    shown = job(webui, trained, scene, unit)
    assert sum(one.palette == scene.palette for one in shown) >= SOME
