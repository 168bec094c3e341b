"""The ways to ask for a style: units by API, the panel's controls, a grid; and what a picture says of its making."""

from __future__ import annotations

import pytest
from live_world import as_base64, from_base64, picture

IMAGE, OTHER = as_base64(picture(0)), as_base64(picture(1))
UNIT = {"image": IMAGE}
FULL = {
    "image": [IMAGE, OTHER],
    "adapter": "tiny-base",
    "preset": "style_and_layout",
    "weight": 0.75,
    "layout_weight": 0.25,
    "content_prompt": "a cat, with: punctuation",
    "content_scale": 0.4,
    "content_method": "project",
    "start": 0.1,
    "end": 0.9,
}
PLUS = {"image": OTHER, "adapter": "tiny-plus", "preset": "custom", "blocks": {"up_blocks.0": 0.5, "mid_block": 1.0}}


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_a_picture_says_all_about_its_style(webui, tab):
    job = webui.post(tab, (FULL, {"enabled": False}, PLUS), {})
    said = parse(job.infotext)
    assert job.status == 200
    assert sorted(key for key in said if key.startswith("InstantStyle")) == [
        "InstantStyle 1",
        "InstantStyle 3",
        "InstantStyle version",
    ]
    for part in (
        "adapter: tiny-base, preset: style_and_layout, weight: 0.75, layout_weight: 0.25",
        'content_prompt: "a cat, with: punctuation", content_scale: 0.4, content_method: project',
        "start: 0.1, end: 0.9",
    ):
        assert part in said["InstantStyle 1"]
    assert 'preset: custom, weight: 1.0, blocks: {"up_blocks.0": 0.5, "mid_block": 1.0}' in said["InstantStyle 3"]


def test_the_text_in_the_png_is_the_same(webui):
    job = webui.txt2img(FULL)
    assert from_base64(job.answer["images"][0]).info["parameters"] == job.infotext


def test_a_plain_picture_says_nothing(webui):
    assert "InstantStyle" not in webui.txt2img({**UNIT, "enabled": False}).infotext


def test_auto_is_written_as_the_adapter_it_chose(webui):
    assert "adapter: tiny-base" in parse(webui.txt2img(UNIT).infotext)["InstantStyle 1"]


def parse(infotext):
    from modules.infotext_utils import parse_generation_parameters

    return parse_generation_parameters(infotext)


def test_the_panels_controls_are_a_unit_in_another_form(webui):
    """Their order is permanent: people keep requests that fill them by position."""
    slots, is_on = ["no unit"] * 4, True
    first = [True, IMAGE, None, "tiny-base", "style_and_layout", 0.75, 0.25, "", "a cat", 0.4, "project", 0.1, 0.9]
    second = [True, OTHER, None, "auto", "custom", 1, 1, "up_blocks.0: 0.5\nmid_block: 1", "", 0.5, "subtract", 0, 1]
    third = [True, None, None, "auto", "style", 1, 1, "", "", 0.5, "subtract", 0, 1]
    rest = [False, None, None]  # length restored, picture to remove, picture to avoid
    by_panel = webui.txt2img(*slots, is_on, *first, *rest, *second, *rest, *third, *rest)
    by_units = webui.txt2img(
        {**FULL, "image": IMAGE, "content_prompt": "a cat"}, {**PLUS, "adapter": "auto", "enabled": True}
    )
    assert by_panel.status == by_units.status == 200, by_panel.answer
    assert by_panel.same_as(by_units)


def test_a_panel_that_is_switched_off_does_nothing(webui, by_the_book):
    off = webui.txt2img(*["no unit"] * 4, False, True, IMAGE)
    assert off.same_as(by_the_book.plain("txt2img", {}))


def test_a_grid_styles_each_cell_as_a_single_job(webui):
    weights = (1.0, 0.0, 0.5)
    grid = webui.txt2img(UNIT, script_name="x/y/z plot", script_args=plot("Style weight", "1, 0, 0.5"))
    singles = [webui.txt2img({**UNIT, "weight": weight}) for weight in weights]
    assert grid.status == 200, grid.answer
    assert len(grid.passes) == len(weights)
    for cell, single in zip(grid.passes, singles):
        assert cell.latents.equal(single.passes[0].latents)


def test_an_impossible_cell_of_a_grid_is_told_before_the_first(webui):
    """The X/Y/Z script itself goes on after an error in a cell, which it leaves blank."""
    grid = webui.txt2img(UNIT, script_name="x/y/z plot", script_args=plot("Style weight", "1, 9"))
    assert (grid.status, grid.passes) == (500, [])
    assert "weight" in grid.answer["errors"]


def test_a_grid_of_styles_without_a_reference_is_told_before_the_first_cell(webui):
    grid = webui.txt2img(script_name="x/y/z plot", script_args=plot("Style weight", "0, 1"))
    assert (grid.status, grid.passes) == (500, [])
    assert "needs an active reference" in grid.answer["errors"]


def plot(label: str, values: str) -> list[object]:
    """The X/Y/Z script's arguments for one of our axes."""
    from modules import scripts

    script = next(one for one in scripts.scripts_txt2img.selectable_scripts if one.title() == "X/Y/Z plot")
    axis = [option.label for option in script.current_axis_options].index(f"[InstantStyle] {label}")
    no_axis = [0, "", []]
    draw_legend, lone_images, sub_grids, random_seeds = False, True, False, False
    vary_seeds, margin, as_csv = [False] * 3, 0, False
    switches = [draw_legend, lone_images, sub_grids, random_seeds, *vary_seeds, margin, as_csv]
    return [axis, values, [], *no_axis, *no_axis, *switches]
