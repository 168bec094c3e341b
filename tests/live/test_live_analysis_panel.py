"""Looking at a reference in a real browser: words to pick, the leak meter, and every content setting pasted back."""

from __future__ import annotations

import shutil

import pytest
from live_browser import PATIENCE, Panel, open_page, send_to_txt2img
from live_world import as_base64, newest_picture, picture, same_pixels

MORE = "Pictures to remove and to avoid; where and when the style acts"


@pytest.fixture
def panel(page, files):
    """The panel of txt2img with a reference."""
    made = Panel(page)
    made.open()
    made.drop(files[0])
    return made


def told(server, **fields):
    """What the API tells of the same unit, as the meter shows it."""
    answer = server.post("/instantstyle/analyze", {"image": as_base64(picture(0)), "words": 0, **fields})
    assert answer.status_code == 200, answer.text
    rows = answer.json()["phrases"]
    return {
        row["text"]: (pytest.approx(row["before"], abs=0.006), pytest.approx(row["after"], abs=0.006)) for row in rows
    }


def test_the_first_analysis_shows_its_progress(panel, world):
    shutil.rmtree(world.folder / "cache" / "instantstyle" / "embeds", ignore_errors=True)
    panel.locate("analyse").click()
    panel.meter.get_by_text("once for this text encoder").wait_for()
    panel.locate("words").locator("label").first.wait_for(timeout=PATIENCE)


def test_a_picked_word_is_removed_and_the_meter_follows_every_control(panel, server):
    words = panel.analyse()
    assert len(words) == 18
    assert "Nothing is removed yet" in panel.meter.inner_text()
    panel.click_chip(words[0])
    assert panel.value("content_prompt") == words[0]
    assert panel.bars() == told(server, content_prompt=words[0], content_method="subtract", content_scale=0.5)
    panel.choose("content_method", "Project")
    panel.click_chip(words[3])
    both = f"{words[0]}, {words[3]}"
    assert panel.value("content_prompt") == both
    seen = []
    for scale in (0.5, 1, 1.4):
        panel.type("content_scale", str(scale))
        panel.page.wait_for_timeout(1000)
        seen.append(panel.bars())
        assert seen[-1] == told(server, content_prompt=both, content_method="project", content_scale=scale)
    assert all(panel.bars()[word] != seen[0][word] for word in seen[0])
    panel.choose("content_method", "Auto")
    panel.page.wait_for_timeout(500)
    assert panel.bars() == told(server, content_prompt=both, content_method="auto", content_scale=1.4)


def test_the_meter_ends_where_a_dragged_slider_ends(panel, server):
    word = panel.analyse()[0]
    panel.click_chip(word)
    panel.choose("content_method", "Project")
    box = panel.locate("content_scale").locator("input[type=range]").bounding_box()
    mouse, y = panel.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + box["width"] / 4, y)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.9, y, steps=25)
    mouse.up()
    panel.page.wait_for_timeout(2500)
    scale = float(panel.value("content_scale"))
    assert scale > 1.5
    assert panel.bars() == told(server, content_prompt=word, content_method="project", content_scale=scale)


def test_what_is_written_by_hand_counts_and_stays(panel):
    words = panel.analyse()
    panel.choose("content_method", "Project")
    panel.type("content_prompt", f"a marble statue, ({words[2]}:1.2)")
    panel.page.wait_for_timeout(1500)
    assert list(panel.bars()) == ["a marble statue", words[2]]
    assert [word for word, picked in panel.chips().items() if picked] == [words[2]]
    panel.click_chip(words[2])
    assert panel.value("content_prompt") == "a marble statue"
    assert list(panel.bars()) == ["a marble statue"]


def test_a_chip_may_be_clicked_straight_after_writing_another_word(panel):
    words = panel.analyse()
    panel.locate("content_prompt").locator("textarea").fill(f"{words[1]}, snow")
    panel.click_chip(words[4])
    assert panel.value("content_prompt") == f"{words[1]}, snow, {words[4]}"
    assert [word for word, picked in panel.chips().items() if picked] == [words[1], words[4]]


def test_another_picture_takes_words_and_meter_away(panel, files):
    panel.click_chip(panel.analyse()[0])
    panel.locate("image").locator("button[aria-label=Clear]").click()
    panel.page.wait_for_timeout(1000)
    assert not panel.locate("words").is_visible()
    assert not panel.meter.is_visible()
    panel.drop(files[1])
    assert len(panel.analyse()) == 18
    assert panel.bars()


def test_without_a_picture_it_says_so_in_place(page):
    panel = Panel(page)
    panel.open()
    panel.locate("analyse").click()
    panel.meter.get_by_text("There is no reference picture").wait_for()
    assert not panel.locate("words").is_visible()
    assert page.locator(".toast-wrap .toast-body").count() == 0


def test_img2img_has_an_analysis_of_its_own(page, files):
    page.click('#tabs button:has-text("img2img")')
    page.wait_for_timeout(1000)
    panel = Panel(page, "img2img")
    panel.open()
    panel.drop(files[0])
    word = panel.analyse()[0]
    panel.click_chip(word)
    assert panel.value("content_prompt") == word
    assert list(panel.bars()) == [word]
    assert Panel(page).value("content_prompt") == ""


def test_all_content_settings_come_back_from_the_picture(panel, browser, files, world, server):
    panel.make_small("a cat")
    panel.click_chip(panel.analyse()[0])
    panel.choose("content_method", "Auto")
    panel.type("content_scale", "0.8")
    panel.page.get_by_text(MORE).first.click()
    panel.choose("content_renorm", "Keep the embedding's original strength")
    panel.drop(files[1], field="content_image")
    panel.drop(files[2], field="negative_image")
    first, message = panel.generate()
    assert "Error" not in message
    made = newest_picture(world)

    pasted = Panel(open_page(browser, server.url))
    send_to_txt2img(pasted.page, made)
    assert pasted.value("content_prompt") == panel.value("content_prompt") != ""
    assert pasted.value("content_scale") == "0.8"
    again, _ = pasted.generate()
    assert again == first
    assert "content_renorm: true" in first.lower()
    assert newest_picture(world) != made
    assert same_pixels(newest_picture(world), made)


def test_pasting_over_an_analysis_leaves_no_word_of_the_old_picture(panel, browser, files, world, server):
    panel.make_small("a cat")
    panel.type("content_prompt", "a dog")
    panel.generate()
    other = Panel(open_page(browser, server.url))
    other.open()
    other.drop(files[1])
    other.click_chip(other.analyse()[0])
    send_to_txt2img(other.page, newest_picture(world))
    assert other.value("content_prompt") == "a dog"
    assert not other.locate("words").is_visible()
    assert not other.meter.is_visible()
    other.analyse()
    assert list(other.bars()) == ["a dog"]
