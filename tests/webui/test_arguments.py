"""From the script's argument list to units: API slots, the panel's controls, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from PIL import Image

from lib_instantstyle.units.errors import UnitError
from lib_instantstyle.units.routing import PRESETS
from lib_instantstyle.units.unit import DEFAULTS, FIELDS, StyleUnit
from lib_instantstyle.webui.arguments import (
    NO_UNIT,
    PANEL_VALUES,
    read_blocks,
    requested_units,
    strength_after,
    unit_limit,
    unit_to_analyse,
    write_blocks,
)

PICTURE = Image.new("RGB", (4, 4))
EMPTY = dict.fromkeys(("image", "more_pictures", "content_image", "negative_image"))
UNTOUCHED = {**DEFAULTS, **EMPTY, "layout_weight": 1.0, "content_scale": 0.5, "push_weight": 1.0, "blocks": ""}
UNTOUCHED |= {"layout_curve": "", "image_weights": "", "palette": 0.0}


def arguments(*tabs: dict[str, Any], is_on: bool = True, slots: tuple[Any, ...] = (), limit: int = 3) -> list[Any]:
    """An argument list as the WebUI passes it."""
    filled = [*slots, *[NO_UNIT] * (limit + 1 - len(slots))]
    panel = [{**UNTOUCHED, **(tabs[n] if n < len(tabs) else {})} for n in range(limit)]
    return [*filled, is_on, *(tab[name] for tab in panel for name in PANEL_VALUES)]


def test_every_field_of_the_schema_has_a_control() -> None:
    assert set(PANEL_VALUES) == {*FIELDS, "more_pictures"}


def test_the_order_of_controls_never_changes() -> None:
    """Scripts of others send values by their places; new controls go to the end."""
    first = "enabled image more_pictures adapter preset weight layout_weight blocks content_prompt content_scale "
    first += "content_method start end content_renorm content_image negative_image push_weight curve layout_curve "
    first += "passes fusion kv_scaling"
    known = tuple(first.split())
    assert PANEL_VALUES[: len(known)] == known


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_the_unit_limit_is_read_off_the_argument_list(limit: int) -> None:
    assert unit_limit(arguments(limit=limit)) == limit


def test_a_closed_panel_asks_for_nothing() -> None:
    assert requested_units(arguments({"image": PICTURE}, is_on=False)) == ()


def test_a_dropped_picture_with_everything_else_left_alone_is_one_style_unit() -> None:
    units = [unit for unit in requested_units(arguments({"image": PICTURE})) if unit.enabled]
    assert len(units) == 1
    assert (units[0].preset, units[0].weight, units[0].image) == ("style", 1.0, (PICTURE,))


def test_an_open_panel_without_a_picture_is_refused() -> None:
    with pytest.raises(UnitError, match="no reference picture"):
        requested_units(arguments())


@pytest.mark.parametrize("meant", [{"content_prompt": "a cat"}, {"preset": "custom", "blocks": "mid_block: 1"}])
def test_a_filled_tab_without_a_picture_is_refused_and_not_skipped(meant: dict[str, str]) -> None:
    with pytest.raises(UnitError, match="needs a picture") as caught:
        requested_units(arguments({"image": PICTURE}, meant))
    assert (caught.value.unit, caught.value.field) == (2, "image")


def test_a_tab_without_a_picture_whose_sliders_were_moved_is_unused() -> None:
    """They may have been moved once for all, by a default of one's own."""
    units = requested_units(arguments({"weight": 2.0, "preset": "layout"}, {"image": PICTURE}))
    assert [unit.enabled for unit in units] == [False, True, False]


def test_a_tab_that_is_not_used_may_hold_half_a_block() -> None:
    idle = {"image": PICTURE, "enabled": False, "preset": "custom", "blocks": "up_blo"}
    assert [unit.enabled for unit in requested_units(arguments(idle, {"image": PICTURE}))] == [False, True, False]


def test_tabs_keep_their_numbers() -> None:
    units = requested_units(arguments({}, {"image": PICTURE}))
    assert [unit.enabled for unit in units] == [False, True, False]


def test_more_pictures_join_the_first() -> None:
    data = b"not decoded here"
    unit = requested_units(arguments({"image": PICTURE, "more_pictures": [data]}))[0]
    assert unit.image == (PICTURE, base64.b64encode(data).decode())


def test_pictures_to_remove_and_to_avoid_reach_the_unit() -> None:
    unit = requested_units(arguments({"image": PICTURE, "content_image": PICTURE, "negative_image": PICTURE}))[0]
    assert unit.content_image == unit.negative_image == (PICTURE,)
    assert requested_units(arguments({"image": PICTURE}))[0].content_image == ()


@pytest.mark.parametrize("name", ["content_image", "negative_image"])
def test_tab_with_another_picture_alone_is_refused_and_not_skipped(name: str) -> None:
    with pytest.raises(UnitError, match="needs a picture"):
        requested_units(arguments({"image": PICTURE}, {name: PICTURE}))


def test_a_lora_takes_the_place_of_the_picture_and_of_what_was_set_for_one() -> None:
    tab = {"image": PICTURE, "adapter": "base", "content_method": "auto", "content_prompt": "a cat", "fusion": "adain"}
    found = requested_units(arguments({**tab, "method": "lora", "lora": "ink", "weight": 0.5}))
    assert found[0] == StyleUnit(method="lora", lora="ink", weight=0.5)
    assert requested_units(arguments({**tab, "lora": "ink"}))[0].lora == ""


def test_a_tab_set_to_a_lora_that_names_none_is_refused_and_not_skipped() -> None:
    with pytest.raises(UnitError, match="needs the name of a LoRA"):
        requested_units(arguments({"image": PICTURE}, {"method": "lora"}))


def test_custom_blocks_count_only_with_their_preset() -> None:
    tab = {"image": PICTURE, "blocks": "up_blocks.0: 1"}
    assert requested_units(arguments(tab))[0].blocks is None
    assert requested_units(arguments({**tab, "preset": "custom"}))[0].blocks == (("up_blocks.0", 1.0),)


def test_the_layout_weight_counts_only_with_its_preset() -> None:
    """Its slider always has a value, which must not reach the infotext of a picture it had no part in."""
    tab = {"image": PICTURE, "layout_weight": 0.4}
    assert requested_units(arguments(tab))[0].layout_weight is None
    assert requested_units(arguments({**tab, "preset": "style_and_layout"}))[0].layout_weight == 0.4


def test_the_push_counts_only_with_its_preset() -> None:
    tab = {"image": PICTURE, "push_weight": 0.4}
    assert requested_units(arguments(tab))[0].push_weight is None
    pushing = next(preset.name for preset in PRESETS.values() if preset.pushes)
    assert requested_units(arguments({**tab, "preset": pushing}))[0].push_weight == 0.4


@pytest.mark.parametrize("sent", ["/etc/passwd", ["/etc/passwd"], [{"name": "/etc/passwd"}], [b"x", "/etc/passwd"], 1])
def test_no_path_in_the_place_of_files_is_opened(sent: Any) -> None:
    with pytest.raises(UnitError, match="must be uploaded files") as caught:
        requested_units(arguments({"image": PICTURE, "more_pictures": sent}))
    assert caught.value.field == "image"


def test_slots_go_before_the_panel() -> None:
    units = requested_units(arguments({"image": PICTURE, "weight": 3.0}, slots=({"image": "abc"},)))
    assert [unit.weight for unit in units] == [1.0]


def test_a_unit_too_many_is_refused() -> None:
    with pytest.raises(UnitError, match="At most 3 references") as caught:
        requested_units(arguments(slots=({"image": "abc"},) * 4))
    assert caught.value.unit == 4


@pytest.mark.parametrize("junk", [None, True, 1, "image", ["image"]])
def test_what_is_no_object_is_refused_even_beside_good_units(junk: object) -> None:
    with pytest.raises(UnitError, match="must be a JSON object") as caught:
        requested_units(arguments(slots=({"image": "abc"}, junk)))
    assert caught.value.unit == 2


@pytest.mark.parametrize("text", ['{"up_blocks.0": 0.5, "mid_block": 1}', "up_blocks.0: 0.5\n\n  mid_block : 1"])
def test_blocks_are_read_from_json_and_from_lines(text: str) -> None:
    assert read_blocks(text, 1) == {"up_blocks.0": 0.5, "mid_block": 1}


def test_blocks_survive_writing_and_reading() -> None:
    blocks = {"up_blocks.0.attentions.1": 1.25, "mid_block": -0.1234567890123}
    assert read_blocks(write_blocks(blocks), 1) == blocks


@pytest.mark.parametrize("text", ["up_blocks.0", "up_blocks.0: much", "{broken", ": :", "mid_block: 1\nmid_block: 2"])
def test_unreadable_blocks_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        UnitError, match=r"one block per line, each address once, like up_blocks\.0\.attentions\.1: 1\.0"
    ):
        read_blocks(text, 2)


def test_a_tab_can_be_looked_at_before_it_is_ready_to_generate() -> None:
    tab = {"image": PICTURE, "more_pictures": [b"x"], "adapter": "auto", "content_image": None}
    unit = unit_to_analyse({**tab, "content_prompt": "a rabbit", "content_scale": 1.0, "content_method": "auto"})
    assert unit.image == (PICTURE, base64.b64encode(b"x").decode())
    assert (unit.content_prompt, unit.content_scale, unit.content_method) == ("a rabbit", 1.0, "auto")


def test_looking_at_a_tab_without_a_picture_names_the_picture() -> None:
    with pytest.raises(UnitError) as caught:
        unit_to_analyse({"image": None, "more_pictures": None, "adapter": "auto"})
    assert caught.value.field == "image"


def test_a_strength_that_was_left_alone_follows_the_method_and_another_stays() -> None:
    assert strength_after("auto", "subtract", 0.5) == 1.0
    assert strength_after("project", "auto", 1.0) == 0.5
    assert strength_after("auto", "project", 0.7) == 0.7
    assert strength_after("subtract", "project", 1.0) == 1.0


@pytest.mark.parametrize(("method", "strength"), [("subtract", 0.5), ("auto", 1.0)])
def test_a_strength_where_its_method_has_it_counts_as_not_given(method: str, strength: float) -> None:
    """So that an X/Y/Z axis over the methods gives each its own."""
    unit, *_ = requested_units(arguments({"image": PICTURE, "content_method": method, "content_scale": strength}))
    assert unit.content_scale is None
    unit, *_ = requested_units(arguments({"image": PICTURE, "content_method": method, "content_scale": 0.7}))
    assert unit.content_scale == 0.7
