"""The panel as a person uses it: controls, buttons, and what becomes of them when Generate is pressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lib_instantstyle.units.fields import Number
from lib_instantstyle.units.routing import PRESETS
from lib_instantstyle.units.unit import FIELDS
from lib_instantstyle.webui.arguments import ONE_PICTURE, PANEL_VALUES

from ..tiny import base_adapter, encoded, picture, save_adapter
from ..tiny.clip import POOLED
from ..tiny.loras import tiny_pairs, write_lora
from ..tiny.unets import LdmUnet, sd15_unet
from .seen import same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

import gradio as gr

from .fakes import A1111

GREYS = Image.radial_gradient("L").resize((40, 36))


@pytest.fixture
def page(web: A1111) -> Any:
    """A page with the panel switched on."""
    shown = web.page()
    shown.enter("enabled-checkbox", True)
    return shown


def generated(web: A1111, page: Any) -> Any:
    """The pictures after Generate; what is shown under them must be nothing."""
    page.press("txt2img_generate")
    assert page.value("html_log_txt2img") == ""
    return web.made


def test_the_panel_alone_changes_nothing(web: A1111) -> None:
    assert same(generated(web, web.page()).images, web.plain().images)


def test_a_dropped_picture_styles_as_the_api_does(web: A1111, page: Any) -> None:
    page.drop("unit1_image", picture())
    assert same(generated(web, page).images, web.generate(unit(adapter="auto")).images)


def test_every_control_reaches_the_job(web: A1111, page: Any) -> None:
    page.drop("unit2_image", picture())
    page.drop("unit2_more_pictures", picture(1), picture(2))
    page.drop("unit2_content_image", picture(3))
    page.drop("unit2_negative_image", picture(4))
    entered = {
        "adapter": "base",
        "preset": "style_and_layout",
        "weight": 0.8,
        "layout_weight": 0.6,
        "content_prompt": "a rabbit",
        "content_method": "project",
        "content_scale": 0.3,
        "content_renorm": True,
        "negative_noise": 0.2,
        "attention_guidance": 1.5,
        "start": 0.1,
        "end": 0.9,
        "curve": "fade_out",
        "layout_curve": "0: 0.5, 1: 1",
        "passes": "first",
        "fusion": "adain",
        "kv_scaling": "kv",
        "crop": "tiles",
        "combine": "average",
        "image_weights": "1, 0.5, 2",
        "palette": 0.5,
    }
    for name, value in entered.items():
        page.enter(f"unit2_{name}", value)
    page.drop("unit2_mask", GREYS)
    page.drop("unit2_image_mask", GREYS)
    pictures = {
        "mask": encoded(GREYS),
        "image_mask": encoded(GREYS),
        "image": [encoded(picture(seed)) for seed in (0, 1, 2)],
        "content_image": encoded(picture(3)),
        "negative_image": encoded(picture(4)),
    }
    assert same(generated(web, page).images, web.generate({**entered, **pictures}).images)


def test_transparency_of_a_dropped_picture_is_not_lost(web: A1111, page: Any) -> None:
    seen = picture().convert("RGBA")
    seen.putalpha(picture(1).convert("L"))
    page.drop("unit1_image", seen)
    expected = web.generate(unit(adapter="auto", image=encoded(seen)))
    assert not same(expected.images, web.generate(unit(adapter="auto")).images)
    assert same(generated(web, page).images, expected.images)


def test_a_curve_of_ones_own_can_be_written(web: A1111, page: Any) -> None:
    page.drop("unit1_image", picture())
    assert page["unit1_curve"]["allow_custom_value"]
    page.enter("unit1_curve", "0: 1, 1: 0.5")
    expected = web.generate(unit(adapter="auto", curve=[[0, 1], [1, 0.5]]))
    assert same(generated(web, page).images, expected.images)


def test_tabs_have_the_numbers_that_messages_name(web: A1111) -> None:
    labels = [block.label for block in web.demo.blocks.values() if block.get_block_name() == "tabitem"]
    assert labels[:3] == ["Reference 1", "Reference 2", "Reference 3"]


def test_custom_blocks_are_typed_or_picked(web: A1111, page: Any) -> None:
    page.drop("unit1_image", picture())
    page.enter("unit1_preset", "custom")
    page.enter("unit1_blocks", "mid_block: 0.5")
    page.enter("unit1_block_picker", "up_blocks.0.attentions.1 = output_blocks.1.1")
    assert page.value("unit1_blocks") == "mid_block: 0.5\nup_blocks.0.attentions.1: 1.0"
    assert page.value("unit1_block_picker") == ""
    page.enter("unit1_block_picker", "")
    assert page.value("unit1_blocks") == "mid_block: 0.5\nup_blocks.0.attentions.1: 1.0"
    blocks = {"mid_block": 0.5, "up_blocks.0.attentions.1": 1.0}
    expected = web.generate(unit(adapter="auto", preset="custom", blocks=blocks))
    assert same(generated(web, page).images, expected.images)


@pytest.mark.parametrize(
    ("preset", "shown"),
    [("style", (False, False)), ("style_and_layout", (True, False)), ("custom", (False, True))],
)
def test_controls_that_a_preset_needs_appear_with_it(page: Any, preset: str, shown: tuple[bool, bool]) -> None:
    page.enter("unit1_preset", "layout")
    page.enter("unit1_preset", preset)
    assert (page["unit1_layout_weight"]["visible"], page["unit1_custom"]["visible"]) == shown


@pytest.mark.parametrize("name", [name for name in PANEL_VALUES if name in FIELDS])
@pytest.mark.parametrize("number", [1, 3])
def test_a_control_says_what_the_schema_says(web: A1111, number: int, name: str) -> None:
    control, spec = web.page()[f"unit{number}_{name}"], FIELDS[name]
    assert (control["label"], control["webui_tooltip"]) == (spec.label, spec.help)
    if isinstance(spec.kind, Number):
        assert (control["minimum"], control["maximum"]) == (spec.kind.low, spec.kind.high)


def test_a_dropdown_in_which_nothing_is_chosen_offers_nothing_first(web: A1111) -> None:
    """In gradio 4 the page takes the first choice where the value is empty, and sends it."""
    ours = [block for block in web.demo.blocks.values() if "instantstyle_unit" in str(getattr(block, "elem_id", ""))]
    empty = [block for block in ours if block.get_block_name() == "dropdown" and not block.value]
    assert empty
    assert all(block.get_config()["choices"][0] in (block.value, (block.value, block.value)) for block in empty)


def test_what_the_webui_may_remember_is_what_means_the_same_tomorrow(web: A1111) -> None:
    """ui-config.json goes by labels, which all tabs share, and takes a choice's label for its value."""
    blocks = {block.elem_id: block for block in web.demo.blocks.values() if getattr(block, "elem_id", None)}
    remembered = {
        name.removeprefix("script_txt2img_instantstyle_")
        for name, block in blocks.items()
        if "txt2img_instantstyle_unit" in name
        and hasattr(block, "value")
        and not getattr(block, "do_not_save_to_config", False)
        and block.get_block_name() in ("slider", "radio", "checkbox", "textbox", "dropdown", "checkboxgroup")
    }
    changed = {"method", "lora", "image", "more_pictures", "adapter", "preset", "content_method", *ONE_PICTURE}
    assert remembered == {f"unit1_{name}" for name in {*PANEL_VALUES} - changed}


def test_presets_are_chosen_by_their_names_and_the_push_appears_with_its_own(page: Any) -> None:
    assert [one[1] for one in page["unit1_preset"]["choices"]] == list(PRESETS)
    pushing = next(preset.name for preset in PRESETS.values() if preset.pushes)
    assert page["unit1_push_weight"]["visible"] is False
    page.enter("unit1_preset", pushing)
    assert page["unit1_push_weight"]["visible"] is True


def test_a_strength_that_was_left_alone_follows_every_change_of_method(page: Any) -> None:
    for method, strength in (("auto", 1.0), ("project", 0.5), ("auto", 1.0)):
        page.enter("unit1_content_method", method)
        assert page.value("unit1_content_scale") == strength


def test_the_strength_of_a_removal_follows_its_method_until_it_is_moved(page: Any) -> None:
    page.enter("unit1_content_method", "auto")
    assert page.value("unit1_content_scale") == 1.0
    page.enter("unit1_content_scale", 0.3)
    page.enter("unit1_content_method", "project")
    assert page.value("unit1_content_scale") == 0.3


@pytest.mark.parametrize(
    ("group", "title", "changes", "told"),
    [
        ("weight", "Pictures to remove", {"end": 0.8, "passes": "first"}, "to 0.8 · first pass only"),
        ("weight", "Pictures to remove", {"curve": "fade_in", "fusion": "adain"}, "fade_in · adain"),
        (
            "reference",
            "More pictures of the same style",
            {"crop": "top", "image_weights": "1, 2"},
            "top · weights 1, 2",
        ),
        (
            "weight",
            "Pictures to remove",
            {"attention_guidance": 2, "negative_noise": 0.3},
            "noise 0.3 · attention guided 2",
        ),
    ],
)
def test_a_folded_group_says_what_is_set_inside(
    page: Any, group: str, title: str, changes: dict[str, Any], told: str
) -> None:
    plain = page[f"unit1_more_{group}"]["label"]
    assert plain.startswith(title)
    before = {name: page.value(f"unit1_{name}") for name in changes}
    for name, value in changes.items():
        page.enter(f"unit1_{name}", value)
    assert page[f"unit1_more_{group}"]["label"] == f"{plain}: {told}"
    assert page[f"unit3_more_{group}"]["label"] == plain
    page.press(f"unit1_more_{group}_reset")
    assert {name: page.value(f"unit1_{name}") for name in changes} == before
    assert page[f"unit1_more_{group}"]["label"] == plain


def test_pictures_in_a_folded_group_are_told_and_taken_out(page: Any) -> None:
    page.drop("unit1_mask", GREYS)
    page.drop("unit1_more_pictures", picture(1), picture(2))
    assert page["unit1_more_weight"]["label"].endswith(": region")
    assert page["unit1_more_reference"]["label"].endswith(": 2 more pictures")
    page.press("unit1_more_weight_reset")
    page.press("unit1_more_reference_reset")
    assert page.value("unit1_mask") is None
    assert not page.value("unit1_more_pictures")


def test_strength_and_method_are_there_when_there_is_something_to_remove(page: Any) -> None:
    assert page["unit1_removal"]["visible"] is False
    page.enter("unit1_content_prompt", "a rabbit")
    assert page["unit1_removal"]["visible"] is True
    page.enter("unit1_content_prompt", " ")
    assert page["unit1_removal"]["visible"] is False
    page.drop("unit1_content_image", picture(1))
    assert page["unit1_removal"]["visible"] is True


def test_what_the_page_begins_with_shows_at_once(web: A1111) -> None:
    """ui-config.json fills controls in after they are built, and before the page is made."""
    controls = {block.elem_id: block for block in web.demo.blocks.values() if getattr(block, "elem_id", None)}
    filled = {"content_prompt": "a rabbit", "end": 0.8, "fusion": "adain"}
    before = {name: controls[f"script_txt2img_instantstyle_unit1_{name}"].value for name in filled}

    def fill(values: dict[str, Any]) -> None:
        for name, value in values.items():
            controls[f"script_txt2img_instantstyle_unit1_{name}"].value = value

    fill(filled)
    try:
        page = web.page()
        assert page["unit1_removal"]["visible"] is True
        assert page["unit2_removal"]["visible"] is False
        assert page["unit1_more_weight"]["label"].endswith(": to 0.8 · adain")
        page.enter("unit1_passes", "first")
        assert page["unit1_more_weight"]["label"].endswith(": to 0.8 · first pass only · adain")
    finally:
        fill(before)


def test_a_painted_region_becomes_the_region(page: Any) -> None:
    if not page.has("unit1_brush"):
        pytest.skip("this gradio has no such brush")
    stroke = Image.new("RGBA", (20, 10))
    stroke.paste((9, 8, 7, 255), (5, 0, 10, 10))
    page.paint("unit1_brush", picture(), stroke)
    page.press("unit1_brush_use")
    assert page["unit1_more_weight"]["label"].endswith(": region")
    found = page.picture("unit1_mask").convert("L")
    assert [found.getpixel(at) for at in ((4, 5), (7, 5), (12, 5))] == [0, 255, 0]
    page.paint("unit1_brush", picture(), Image.new("RGBA", (20, 10)))
    page.press("unit1_brush_use")
    assert page.value("unit1_mask") is None


@pytest.mark.parametrize("tab", [1, 2])
def test_what_is_missing_is_said_as_the_panel_calls_it(page: Any, tab: int) -> None:
    page.drop("unit1_image", picture())
    page.enter(f"unit{tab}_preset", "custom")
    page.enter(f"unit{tab}_blocks", "nonsense")
    page.drop(f"unit{tab}_image", picture())
    page.press("txt2img_generate")
    assert f"Reference {tab}, Custom blocks: " in page.value("html_log_txt2img")


def test_a_panel_that_is_on_without_a_picture_is_refused(page: Any) -> None:
    page.press("txt2img_generate")
    assert "no reference picture" in page.value("html_log_txt2img")


def offered(page: Any, name: str) -> list[str]:
    """The labels of a dropdown's choices, which gradio keeps alone or with their values."""
    return [one if isinstance(one, str) else one[0] for one in page[name]["choices"]]


def test_adapters_that_came_meanwhile_are_found_again(web: A1111, page: Any, tmp_path: Path) -> None:
    assert offered(page, "unit1_adapter") == ["auto", "base", "plus"]
    save_adapter(base_adapter(LdmUnet(), POOLED, seed=5), tmp_path / "mine/special.safetensors")
    web.cmd_opts.instantstyle_dir = [str(tmp_path / "mine")]
    page.press("unit1_refresh")
    assert "special" in offered(page, "unit1_adapter")


def test_a_lora_hides_what_means_nothing_with_it_and_reaches_the_job(
    web: A1111, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.cmd_opts, "lora_dir", str(tmp_path), raising=False)
    unet = web.sd_model.model.diffusion_model
    inside = [path for path, one in unet.named_modules() if hasattr(one, "weight") and "output_blocks.1.1" in path]
    pairs = tiny_pairs(unet, [path for path in inside if path.endswith("to_q")])
    write_lora(tmp_path / "ink.safetensors", pairs, "kohya in diffusers' names")
    page.press("unit1_refresh")
    assert page["unit1_lora"]["visible"] is False
    page.enter("unit1_method", "lora")
    page.enter("unit1_lora", "ink")
    hidden = ("image", "more_pictures", "adapter", "fusion", "kv_scaling")
    assert not any(page[f"unit1_{name}"]["visible"] for name in hidden)
    assert "ink" in offered(page, "unit1_lora")
    expected = web.generate({"method": "lora", "lora": "ink"})
    assert same(generated(web, page).images, expected.images)
    assert not same(expected.images, web.plain().images)
    page.enter("unit1_method", "adapter")
    assert (page["unit1_image"]["visible"], page.value("unit1_lora")) == (True, "")


def test_only_colours_hides_what_is_for_layers_and_is_whole_until_it_is_moved(web: A1111, page: Any) -> None:
    page.drop("unit1_image", picture(1))
    page.enter("unit1_method", "palette")
    assert not any(page[f"unit1_{name}"]["visible"] for name in ("adapter", "curve", "layout_curve", "fusion", "crop"))
    assert page.value("unit1_palette") == 1
    assert same(generated(web, page).images, web.generate({"method": "palette", "image": encoded(picture(1))}).images)
    page.enter("unit1_palette", 0.4)
    page.enter("unit1_method", "adapter")
    assert page.value("unit1_palette") == 0.4


class TestStatus:
    """What stands above the references, and the download button."""

    def test_it_names_what_auto_takes(self, web: A1111, page: Any) -> None:
        for shown in (web.page(), page):  # before and after the panel is switched on
            assert "Auto uses" in shown.value("status")
            assert shown["download"]["visible"] is False

    @pytest.fixture
    def bare(self, web: A1111, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A page of a WebUI without models."""
        monkeypatch.setattr("modules.paths.models_path", str(tmp_path / "none"))
        web.reload_ui()
        return web.page()

    def test_without_models_it_offers_them_with_their_sizes(self, bare: Any) -> None:
        assert "No SDXL IP-Adapter is installed" in bare.value("status")
        assert "swapped self-attention" in bare.value("status")
        assert bare["download"]["visible"] is True
        assert "ip-adapter_sdxl.safetensors (0.7 GB) and" in bare.value("download")

    def test_the_download_goes_where_models_are_looked_for(
        self, web: A1111, bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetched = []
        monkeypatch.setattr(
            web.library("panel.readiness"), "fetch", lambda one, folder, progress: fetched.append((one.kind, folder))
        )
        bare.press("download")
        folders = {"adapter": tmp_path / "none/ControlNet", "encoder": tmp_path / "none/clip_vision"}
        assert dict(fetched) == folders

    def test_after_a_download_the_button_goes(self, web: A1111, bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def fetch(*_: Any) -> None:
            monkeypatch.setattr("modules.paths.models_path", str(web.models_path))

        monkeypatch.setattr(web.library("panel.readiness"), "fetch", fetch)
        bare.press("download")
        assert "Auto uses" in bare.value("status")
        assert bare["download"]["visible"] is False

    def test_a_download_that_fails_in_any_way_says_so(
        self, web: A1111, bare: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(web.library("panel.readiness"), "fetch", fail)
        bare.press("download")
        assert "No space left on device" in bare.value("status")
        assert bare["download"]["visible"] is True

    def test_opening_the_panel_looks_again(self, web: A1111, bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modules.paths.models_path", str(web.models_path))
        bare.enter("enabled-checkbox", True)
        assert "Auto uses" in bare.value("status")

    def test_a_checkpoint_that_is_still_loading_costs_no_panel(
        self, web: A1111, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def changing(*_: Any, **__: Any) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

        monkeypatch.setattr(web.sd_model.model.diffusion_model, "named_modules", changing)
        web.reload_ui()
        assert "Auto uses" in web.page().value("status")

    def test_a_checkpoint_of_another_family_is_named(self, web: A1111) -> None:
        web.sd_model.model.diffusion_model = sd15_unet()
        web.reload_ui()
        assert "SD 1.5" in web.page().value("status")

    def test_an_unforeseen_error_costs_no_panel(self, web: A1111, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(web.library("panel.panel"), "readiness", lambda *_, **__: 1 / 0)
        web.reload_ui()
        assert "ZeroDivisionError" in web.page().value("status")
        assert web.page().has("unit1_weight")


class TestAnalysis:
    """What the reference shows: words to pick, and the meter that follows."""

    @pytest.fixture
    def analysed(self, page: Any) -> Any:
        page.drop("unit1_image", picture())
        page.press("unit1_analyse")
        return page

    def test_before_it_nothing_of_it_is_there(self, page: Any) -> None:
        page.enter("unit1_content_scale", 0.4)
        assert not page["unit1_words"]["visible"]
        assert not page["unit1_meter"]["visible"]
        assert not page.value("unit1_meter")

    def test_it_needs_a_picture(self, page: Any) -> None:
        page.press("unit1_analyse")
        assert "no reference picture yet" in page.value("unit1_meter")
        assert not page["unit1_words"]["visible"]

    def test_words_are_offered_and_the_meter_stands_ready(self, analysed: Any) -> None:
        assert len(analysed["unit1_words"]["choices"]) == 18
        assert analysed["unit1_words"]["visible"]
        assert "Nothing is removed yet" in analysed.value("unit1_meter")

    def test_a_picked_word_goes_into_the_prompt_and_the_meter(self, analysed: Any) -> None:
        word = _words(analysed)[0]
        analysed.pick("unit1_words", word)
        assert analysed.value("unit1_content_prompt") == word
        assert word in analysed.value("unit1_meter")
        analysed.pick("unit1_words", word)
        assert analysed.value("unit1_content_prompt") == ""
        assert "Nothing is removed yet" in analysed.value("unit1_meter")

    def test_a_word_typed_by_hand_is_shown_as_picked(self, analysed: Any) -> None:
        word = _words(analysed)[2]
        analysed.enter("unit1_content_prompt", f"a moon, {word}")
        analysed.leave("unit1_content_prompt")
        assert analysed.value("unit1_words") == [word]
        assert "a moon" in analysed.value("unit1_meter")

    @pytest.mark.parametrize(("name", "value"), [("content_scale", 0.9), ("content_method", "project")])
    def test_the_meter_follows_the_controls(self, analysed: Any, name: str, value: Any) -> None:
        analysed.pick("unit1_words", _words(analysed)[0])
        before = analysed.value("unit1_meter")
        analysed.enter(f"unit1_{name}", value)
        assert analysed.value("unit1_meter") != before

    def test_the_meter_follows_the_length_of_what_a_plus_adapter_reads(self, page: Any) -> None:
        page.enter("unit1_adapter", "plus")
        page.drop("unit1_image", picture())
        page.enter("unit1_content_prompt", "a rabbit")
        page.enter("unit1_content_scale", 2.0)
        page.press("unit1_analyse")
        before = page.value("unit1_meter")
        page.enter("unit1_content_renorm", True)
        assert page.value("unit1_meter") != before

    @pytest.mark.parametrize("name", ["image", "more_pictures", "content_image", "adapter"])
    def test_another_reference_takes_all_of_it_away(self, analysed: Any, name: str) -> None:
        if name == "adapter":
            analysed.enter("unit1_adapter", "plus")
        else:
            analysed.drop(f"unit1_{name}", picture(7))
        assert not analysed["unit1_words"]["visible"]
        assert not analysed["unit1_meter"]["visible"]

    def test_a_word_that_is_written_already_is_ticked_when_it_is_found(self, analysed: Any) -> None:
        word = _words(analysed)[3]
        analysed.enter("unit1_content_prompt", f"a moon, {word}")
        analysed.press("unit1_analyse")
        assert analysed.value("unit1_words") == [word]

    def test_more_pictures_alone_can_be_looked_at(self, page: Any) -> None:
        page.drop("unit1_more_pictures", picture(1))
        page.press("unit1_analyse")
        assert page["unit1_words"]["visible"]

    def test_an_analysis_that_fails_in_any_way_says_so(self, page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lib_instantstyle.reference.analysis.Analyst.analyse_until", lambda *_, **__: 1 / 0)
        page.drop("unit1_image", picture())
        page.press("unit1_analyse")
        assert "ZeroDivisionError" in page.value("unit1_meter")
        assert not page["unit1_words"]["visible"]

    def test_a_job_in_progress_is_not_disturbed(self, web: A1111, analysed: Any) -> None:
        with web.queue_lock:
            analysed.enter("unit1_content_scale", 0.9)
        assert "The WebUI is busy" in analysed.value("unit1_meter")

    def test_what_goes_wrong_stands_where_the_meter_was(
        self, web: A1111, analysed: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("lib_instantstyle.reference.analysis.Analyst.meter", lambda *_: 1 / 0)
        analysed.enter("unit1_content_scale", 0.9)
        assert "ZeroDivisionError" in analysed.value("unit1_meter")


def _words(page: Any) -> list[str]:
    return [one if isinstance(one, str) else one[1] for one in page["unit1_words"]["choices"]]


def test_progress_without_gradios_queue_asks_for_no_bar(web: A1111) -> None:
    """gradio refuses to start when a handler asks for a bar and there is no queue."""
    with_progress = web.library("panel.progress").with_progress
    web.cmd_opts.no_gradio_queue = True
    plain = with_progress(lambda progress, *values: progress(0.5, "half") or values)
    assert plain(1, 2) == (1, 2)
    assert plain.__defaults__ is None
    web.cmd_opts.no_gradio_queue = False
    barred, shown = with_progress(lambda progress, *values: progress(0.5, "half") or values), []
    assert barred.__defaults__ is not None
    assert barred(lambda share, desc: shown.append((share, desc)), 1, 2) == (1, 2)
    assert shown == [(0.5, "half")]


def test_building_the_page_again_changes_nothing(web: A1111) -> None:
    """The WebUI's API builds the panel twice more to learn its defaults, and throws those away."""
    page, runner = web.page(), web.runners["txt2img"]
    with gr.Blocks():
        again = runner.alwayson_scripts[0].ui(False) or []
    assert [one.value for one in again] == [one.value for one in runner.inputs[1:]]
    page.enter("enabled-checkbox", True)
    page.drop("unit1_image", picture())
    assert same(generated(web, page).images, web.generate(unit(adapter="auto")).images)
