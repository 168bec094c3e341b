"""A picture's text: what it says of us, and what a page makes of it when it is pasted or sent on."""

from __future__ import annotations

from typing import Any

import pytest

from ..tiny import encoded, picture
from .seen import same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111


def pasted(web: A1111, text: str, tab: str = "txt2img") -> Any:
    page = web.page(tab)
    page.enter(f"{tab}_prompt", text)
    page.press(f"{tab}_paste")
    return page


def generated(web: A1111, page: Any, tab: str = "txt2img") -> Any:
    page.press(f"{tab}_generate")
    assert page.value(f"html_log_{tab}") == ""
    return web.made


FULL: dict[str, Any] = {
    "image": [encoded(picture(0)), encoded(picture(1))],
    "adapter": "base",
    "preset": "custom",
    "blocks": {"up_blocks.0.attentions.1": 0.8, "mid_block": -0.2},
    "weight": 1.25,
    "content_prompt": "a rabbit, (a forest:0.5)",
    "content_scale": 0.7,
    "content_method": "project",
    "content_renorm": True,
    "content_image": encoded(picture(2)),
    "negative_image": encoded(picture(3)),
    "start": 0.1,
    "end": 0.9,
}


FINER: dict[str, Any] = {
    **unit(preset="style_and_layout", layout_weight=0.4),
    "curve": "fade_out",
    "layout_curve": [[0, 1], [0.5, 0.25]],
    "kv_scaling": "kv",
}


HALF_OF_AUTO = unit(content_prompt="a rabbit", content_method="auto", content_scale=0.5)


@pytest.mark.parametrize(
    "units",
    [(unit(),), (FULL,), (unit(enabled=False), FULL), (unit(weight=0.5), FULL), (FINER,), (HALF_OF_AUTO,)],
)
def test_a_pasted_text_makes_the_same_pictures(web: A1111, units: tuple[dict[str, Any], ...]) -> None:
    made = web.generate(*units)
    page = pasted(web, made.infotexts[0])
    assert page.value("enabled-checkbox") is True
    assert same(generated(web, page).images, made.images)
    assert web.made.infotexts == made.infotexts


def test_the_text_names_the_version_and_the_adapter_that_auto_took(web: A1111) -> None:
    text = web.generate(unit(adapter="auto")).infotexts[0]
    assert "InstantStyle version: " in text
    assert "adapter: base" in text or "adapter: plus" in text


def test_a_plain_job_says_nothing_of_us(web: A1111) -> None:
    assert "InstantStyle" not in web.generate().infotexts[0]


def test_what_an_earlier_cell_of_a_grid_wrote_is_gone(web: A1111) -> None:
    p = web.job(unit())
    p.extra_generation_params["InstantStyle 2"] = "of another cell"
    web.process(p)
    assert "of another cell" not in web.made.infotexts[0]


def test_the_text_of_a_plain_picture_switches_the_panel_off_and_leaves_the_rest(web: A1111) -> None:
    page = pasted(web, web.generate(unit(weight=0.5)).infotexts[0])
    page.enter("txt2img_prompt", web.plain().infotexts[0])
    page.press("txt2img_paste")
    assert page.value("enabled-checkbox") is False
    assert page.value("unit1_weight") == 0.5


def test_a_unit_that_the_text_does_not_have_is_not_used(web: A1111) -> None:
    page = web.page()
    page.enter("enabled-checkbox", True)
    page.drop("unit2_image", picture(4))
    page.enter("txt2img_prompt", web.generate(unit()).infotexts[0])
    page.press("txt2img_paste")
    assert (page.value("unit1_enabled"), page.value("unit2_enabled")) == (True, False)
    assert page["lost"]["visible"] is False


def test_pictures_that_were_never_used_here_are_named(web: A1111) -> None:
    text = web.generate(unit(), unit(content_image=encoded(picture(2)))).infotexts[0]
    for kept in (web.data_path / "cache/instantstyle/pictures").rglob("*.*"):
        kept.unlink()
    page = pasted(web, text)
    assert page["lost"]["visible"] is True
    assert "reference picture 1: 1 of 1 not kept on this machine" in page.value("lost")
    assert "picture to remove 2" in page.value("lost")


def test_a_unit_for_which_the_panel_has_no_tab_is_named(web: A1111) -> None:
    text = web.generate(unit(), unit()).infotexts[0]
    page = pasted(web, text.replace("InstantStyle 2", "InstantStyle 4"))
    assert "reference 4 (raise the number of references in Settings → InstantStyle" in page.value("lost")


def test_a_panel_with_a_tab_for_every_unit_loses_none(web: A1111) -> None:
    page = pasted(web, web.generate(unit(), unit(), unit()).infotexts[0])
    assert page["lost"]["visible"] is False


def test_a_curve_is_pasted_as_it_is_written(web: A1111) -> None:
    page = pasted(web, web.generate(FINER).infotexts[0])
    assert (page.value("unit1_curve"), page.value("unit1_layout_curve")) == ("fade_out", "0: 1, 0.5: 0.25")


def test_of_several_pictures_to_remove_the_panel_takes_one(web: A1111) -> None:
    text = web.generate(unit(content_image=[encoded(picture(2)), encoded(picture(3))])).infotexts[0]
    page = pasted(web, text)
    assert "picture to remove 1: the panel takes only one of 2" in page.value("lost")
    assert page.value("unit1_content_image") is not None


def test_send_to_img2img_takes_everything_but_files_along(web: A1111) -> None:
    page = pasted(web, web.generate(FULL).infotexts[0])
    here, there = (
        [field.label for field in web.runners[tab].alwayson_scripts[0].infotext_fields or ()]
        for tab in ("txt2img", "img2img")
    )
    assert here == there != []
    assert len(set(here)) == len(here)
    page.press("send_to_img2img")
    for name in ("enabled-checkbox", "unit1_weight", "unit1_content_prompt", "unit1_image", "unit1_blocks"):
        component = page._ids[f"script_img2img_instantstyle_{name}"]
        assert page._props[component]["value"] == page.value(name), name
    assert page._props[page._ids["script_img2img_instantstyle_unit1_more_pictures"]].get("value") is None
    assert "InstantStyle lost" not in web.runners["img2img"].paste_field_names


def test_a_hostile_text_pastes_nothing_and_raises_nothing(web: A1111) -> None:
    page = pasted(web, 'x\nSteps: 1, Seed: 1, InstantStyle 1: "weight: 1e999, preset: [, image: ../../etc/passwd"')
    assert page.value("unit1_weight") == 1.0
    assert page.value("unit1_image") is None
