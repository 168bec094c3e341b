"""Regions in jobs of every kind, in AUTOMATIC1111's WebUI and in Forge's kin: against the formula with a mask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ..tiny import encoded, picture
from .seen import farthest, hooks, same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111
from .fakes.forge import Forge, ReForge
from .formula import by_formula

MASK = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 60), dtype=np.uint8))


@pytest.fixture(params=[A1111, Forge, ReForge])
def anywhere(request: pytest.FixtureRequest, models: Path, tmp_path: Path) -> Iterator[Any]:
    with request.param(models, tmp_path).running() as running:
        yield running
    assert not running.swallowed


def places(mask: Image.Image, width: int, height: int) -> Tensor:
    """The mask's means over the places of the fakes' grid, (1, places, 1); its sides are multiples of the grid's."""
    grey = torch.tensor(np.asarray(mask, np.float32)) / 255
    rows, columns = height // 16, width // 16
    return grey.view(rows, mask.height // rows, columns, mask.width // columns).mean((1, 3)).reshape(1, -1, 1)


LAYOUTS: dict[str, dict[str, Any]] = {
    "wide": {"width": 96, "height": 64},
    "tall": {"width": 32, "height": 80},
    "a batch of several prompts": {"batch_size": 2, "prompt": "a house AND a tree", "width": 96},
    "hires": {"enable_hr": True, "width": 96},
    "no guidance": {"cfg_scale": 1, "width": 96},
}


@pytest.mark.parametrize("fields", LAYOUTS.values(), ids=LAYOUTS)
def test_a_style_acts_in_its_region(anywhere: Any, fields: dict[str, Any]) -> None:
    fields = {"height": 64, **fields}
    share = places(MASK, fields["width"], fields["height"])
    styled = anywhere.generate(unit(mask=encoded(MASK)), **fields)
    with by_formula(anywhere, share=share):
        expected = anywhere.plain(**fields)
    assert farthest(styled.images, expected.images) <= 1
    assert farthest(styled.images, anywhere.generate(unit(), **fields).images) > 10
    assert hooks(anywhere) == 0


def test_with_only_masked_the_part_that_is_drawn_counts(web: A1111) -> None:
    mask = MASK.resize((48, 32))
    p = web.job(unit(mask=encoded(mask)), tab="img2img", init_images=[picture(1, (96, 64))])
    p.paste_to = (48, 16, 48, 48)  # left, top, width, height
    styled = web.process(p)
    with by_formula(web, share=places(mask.crop((24, 8, 48, 32)), 64, 64)):
        expected = web.generate(tab="img2img", init_images=[picture(1, (96, 64))])
    assert farthest(styled.images, expected.images) <= 1


def in_tiles(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another extension has the UNet draw the left half, then the right one."""
    model, own = web.sd_model.model, web.sd_model.model.forward

    def forward(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        return torch.cat([own(half, t, cond) for half in x.chunk(2, -1)], -1)

    def tiled(x: Tensor, t: Tensor, cond: Any) -> Tensor:
        for half in x.chunk(2, -1):
            for hook in list(model._forward_pre_hooks.values()):
                hook(model, (half, t, cond))
        return forward(x, t, cond)

    monkeypatch.setattr(model, "forward", tiled)


def test_where_the_picture_is_drawn_in_tiles_a_region_is_refused(web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
    in_tiles(web, monkeypatch)
    refused = web.library("refusals").InstantStyleRefused
    with pytest.raises(refused, match="The UNet was given 4×8 of a picture of 8×8") as caught:
        web.generate(unit(mask=encoded(MASK)))
    assert caught.value.status_code == 500
    assert hooks(web) == 0


def test_a_region_of_another_kind_is_another_picture_and_a_white_one_none(web: A1111) -> None:
    everywhere = web.generate(unit())
    white = web.generate(unit(mask=encoded(Image.new("L", (5, 3), 255))))
    assert farthest(everywhere.images, white.images) <= 1
    assert not same(web.generate(unit(mask=encoded(MASK))).images, everywhere.images)


def test_the_text_brings_masks_back(web: A1111) -> None:
    made = web.generate(unit(mask=encoded(MASK), image_mask=encoded(MASK)))
    page = web.page()
    page.enter("txt2img_prompt", made.infotexts[0])
    page.press("txt2img_paste")
    page.press("txt2img_generate")
    assert same(web.made.images, made.images)
    assert web.made.infotexts == made.infotexts
