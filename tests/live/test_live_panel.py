"""The panel as a person uses it, in a real browser: drop a picture, generate, read the infotext, paste it back."""

from __future__ import annotations

import pytest
from live_browser import Panel, open_page, send_to_txt2img
from live_world import newest_picture, same_pixels


def test_a_dropped_picture_with_the_rest_left_alone_styles_what_is_prompted(page, files):
    panel = Panel(page)
    panel.make_small("a cat")
    plain, _ = panel.generate()
    panel.open()
    assert "Auto uses" in panel.status()
    panel.drop(files[0])
    styled, message = panel.generate()
    assert "InstantStyle" not in plain
    assert "preset: style, weight: 1.0" in styled
    assert "Error" not in message


def test_an_open_panel_without_a_picture_says_so_and_makes_nothing(page):
    panel = Panel(page)
    panel.make_small("a cat")
    panel.open()
    infotext, message = panel.generate()
    assert "has no reference picture" in message
    assert infotext == ""


def test_everything_comes_back_from_the_picture(page, browser, files, world, server):
    panel = Panel(page)
    panel.make_small("a cat")
    panel.open()
    panel.drop(files[0])
    panel.drop_more(files[1], files[2])
    panel.choose("preset", "Style + Layout")
    panel.unfold("weight")
    for name, text in [
        ("weight", "1.3"),
        ("layout_weight", "0.4"),
        ("content_prompt", 'a rabbit, a "forest": (dark)'),
        ("content_scale", "0.8"),
        ("end", "0.7"),
    ]:
        panel.type(name, text)
    panel.choose("content_method", "Project")
    first, _ = panel.generate()
    made = newest_picture(world)

    fresh = open_page(browser, server.url)
    send_to_txt2img(fresh, made)
    pasted = Panel(fresh)
    values = [pasted.value(name) for name in ("weight", "layout_weight", "content_scale", "end", "content_prompt")]
    assert values == ["1.3", "0.4", "0.8", "0.7", 'a rabbit, a "forest": (dark)']
    again, _ = pasted.generate()

    assert again == first
    assert newest_picture(world) != made
    assert same_pixels(newest_picture(world), made)


def test_what_cannot_be_brought_back_is_told(page, files, world):
    panel = Panel(page)
    panel.make_small("a cat")
    panel.open()
    panel.drop(files[0])
    panel.drop_more(files[1])
    panel.generate()
    for kept in (world.folder / "cache/instantstyle/pictures").glob("*.png"):
        kept.unlink()
    send_to_txt2img(page, newest_picture(world))
    assert page.inner_text("#script_txt2img_instantstyle_lost") == (
        "Not restored: reference picture 1: 2 of 2 not kept on this machine."
    )


def test_the_style_goes_with_the_picture_to_img2img(page, files):
    panel = Panel(page)
    panel.make_small("a cat")
    panel.open()
    panel.drop(files[0])
    panel.type("weight", "1.3")
    panel.choose("preset", "Style + Layout")
    panel.generate()
    page.click("#image_buttons_txt2img #txt2img_send_to_img2img")
    page.wait_for_timeout(3000)
    infotext, message = Panel(page, "img2img").generate()
    assert "preset: style_and_layout, weight: 1.3" in infotext
    assert "Error" not in message


def test_the_dot_of_a_tab_is_its_references(page, files):
    panel = Panel(page)
    panel.open()
    dots = page.locator("#script_txt2img_instantstyle_units .instantstyle-filled")
    page.locator("#script_txt2img_instantstyle_unit1").get_by_text("Pictures to remove and to avoid").click()
    panel.drop(files[0], field="negative_image")
    page.wait_for_timeout(500)
    assert dots.count() == 0
    panel.drop_more(files[1])
    assert dots.count() == 1
    panel.drop(files[0])
    assert dots.count() == 1


def test_a_region_can_be_painted(page, files):
    panel = Panel(page)
    panel.make_small("a cat")
    panel.open()
    panel.drop(files[0])
    panel.unfold("weight")
    if not panel.locate("brush").count():
        pytest.skip("this gradio has no such brush")
    panel.paint(files[1])
    assert (
        panel.locate("more_weight")
        .locator(".label-wrap")
        .first.inner_text()
        .startswith("Pictures to remove and to avoid; where and when the style acts: region")
    )
    infotext, message = panel.generate()
    assert "mask: " in infotext
    assert "Error" not in message


def test_controls_show_only_where_they_count_and_blocks_can_be_picked(page, files):
    panel = Panel(page)
    panel.make_small("a cat")
    panel.open()
    panel.drop(files[0])
    assert not panel.locate("layout_weight").is_visible()
    assert not panel.locate("blocks").is_visible()
    panel.choose("preset", "Custom blocks")
    picker = panel.locate("block_picker").locator("input")
    picker.click()
    picker.press("ArrowDown")
    picker.press("Enter")
    page.wait_for_timeout(1000)
    assert panel.value("blocks") == "down_blocks.1.attentions.1: 1.0"
    infotext, _ = panel.generate()
    assert 'blocks: {\\"down_blocks.1.attentions.1\\": 1.0}' in infotext


def test_the_panel_of_img2img_is_one_of_its_own(page, files):
    page.click('#tabs button:has-text("img2img")')
    page.wait_for_timeout(1000)
    panel = Panel(page, "img2img")
    page.set_input_files("#img2img_image input[type=file]", files[2])
    panel.make_small("a cat")
    panel.open()
    panel.drop(files[0])
    infotext, message = panel.generate()
    assert "preset: style, weight: 1.0" in infotext
    assert "Error" not in message
