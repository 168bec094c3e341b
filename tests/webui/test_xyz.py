"""Axes of the X/Y/Z plot: each sets one field of the first reference in use, in its own cell."""

from __future__ import annotations

from copy import copy
from typing import Any

import pytest

from lib_instantstyle.units.errors import UnitError
from lib_instantstyle.units.unit import DEFAULTS, FIELDS

from .seen import same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111

AXES: tuple[str, ...] = ("preset", "weight", "layout_weight", "content_prompt", "content_scale", "content_method")
AXES += ("start", "end", "push_weight", "curve", "layout_curve", "passes", "fusion", "kv_scaling")
AXES += ("crop", "combine", "image_weights", "method", "lora", "negative_noise", "palette", "attention_guidance")


def axis(web: A1111, name: str) -> Any:
    found = [one for one in web.axis_options if one.label == f"[InstantStyle] {FIELDS[name].label}"]
    assert len(found) == 1
    return found[0]


def cells(web: A1111, p: Any, name: str, values: list[Any]) -> list[Any]:
    """What the grid makes of each value: copies of one job that share their parameters."""
    one, made = axis(web, name), []
    typed = [one.type(value) for value in values]
    one.confirm(p, typed)
    for value in typed:
        cell = copy(p)
        one.apply(cell, value, typed)
        made.append(web.process(cell))
    return made


def test_there_is_one_axis_for_each_field_also_after_a_reload(web: A1111) -> None:
    web.reload_ui()
    web.callbacks.fire("before_ui")
    assert [one.label for one in web.axis_options] == [f"[InstantStyle] {FIELDS[name].label}" for name in AXES]


def test_choices_are_offered_where_there_are_some(web: A1111) -> None:
    assert "style_and_layout" in axis(web, "preset").choices()
    assert set(axis(web, "content_method").choices()) == {"subtract", "project", "auto", "off"}
    assert axis(web, "weight").choices is None


def test_each_cell_has_its_value_and_only_its_value(web: A1111) -> None:
    made = cells(web, web.job(unit(weight=3)), "weight", ["0.5", "1"])
    assert same(made[0].images, web.generate(unit(weight=0.5)).images)
    assert same(made[1].images, web.generate(unit(weight=1)).images)
    assert ["weight: 0.5" in one.infotexts[0] for one in made] == [True, False]


def test_two_axes_meet_in_a_cell(web: A1111) -> None:
    p = web.job(unit())
    cell = copy(p)
    axis(web, "weight").apply(cell, 0.5, [0.5])
    axis(web, "preset").apply(cell, "layout", ["layout"])
    assert same(web.process(cell).images, web.generate(unit(weight=0.5, preset="layout")).images)
    assert same(web.process(p).images, web.generate(unit()).images)


def test_a_copy_of_a_cell_changes_nothing_of_it(web: A1111) -> None:
    cell = web.job(unit())
    axis(web, "weight").apply(cell, 0.5, [0.5])
    axis(web, "weight").apply(copy(cell), 2.0, [2.0])
    assert same(web.process(cell).images, web.generate(unit(weight=0.5)).images)


def test_a_cell_of_several_pictures_keeps_its_value(web: A1111) -> None:
    made = cells(web, web.job(unit(weight=3), n_iter=2), "weight", ["0.5"])
    assert same(made[0].images, web.generate(unit(weight=0.5), n_iter=2).images)


def wind_up(p: Any, pp: Any) -> None:
    """As ADetailer does before it works on a picture's faces."""
    p.scripts.postprocess(copy(p), None)


def test_a_cell_that_another_script_has_wound_up_keeps_its_value(web: A1111) -> None:
    web.add_neighbour(postprocess_image=wind_up)
    made = cells(web, web.job(unit(weight=3), n_iter=2), "weight", ["0.5"])
    assert same(made[0].images, web.generate(unit(weight=0.5), n_iter=2).images)


def test_a_cell_is_measured_by_its_value(web: A1111) -> None:
    web.opts.data["instantstyle_measure"] = True
    scripts = web.runners["txt2img"].alwayson_scripts
    web.add_neighbour(postprocess_image=wind_up)
    scripts.insert(0, scripts.pop())
    made = cells(web, web.job(unit()), "content_prompt", ["a rabbit"])
    expected = web.generate(unit(content_prompt="a rabbit"))
    assert "content" in made[0].infotexts[0].partition("InstantStyle measured")[2]
    assert made[0].infotexts == expected.infotexts


def test_values_are_read_as_the_panel_reads_them(web: A1111) -> None:
    made = cells(web, web.job(unit()), "curve", ["fade_out", "0: 1, 1: 0.5"])
    assert same(made[0].images, web.generate(unit(curve="fade_out")).images)
    assert same(made[1].images, web.generate(unit(curve=[[0, 1], [1, 0.5]])).images)


def test_an_axis_acts_on_the_first_reference_in_use(web: A1111) -> None:
    made = cells(web, web.job(unit(enabled=False, weight=0.25), unit(weight=3), unit(weight=0.1)), "weight", ["0.5"])
    expected = web.generate(unit(enabled=False), unit(weight=0.5), unit(weight=0.1))
    assert same(made[0].images, expected.images)
    assert made[0].infotexts == expected.infotexts  # under their own numbers


@pytest.mark.parametrize(("name", "value"), [("weight", 9.0), ("preset", "nothing"), ("end", 2.0)])
def test_a_value_that_cannot_be_is_refused_before_the_first_cell(web: A1111, name: str, value: Any) -> None:
    with pytest.raises(UnitError, match="must be") as caught:
        axis(web, name).confirm(web.job(unit()), [DEFAULTS[name], value])
    assert caught.value.field == name


@pytest.mark.parametrize("units", [(), (unit(enabled=False),)])
def test_an_axis_without_a_reference_is_refused_before_the_first_cell(web: A1111, units: tuple[Any, ...]) -> None:
    with pytest.raises(Exception, match="needs an active reference"):
        axis(web, "weight").confirm(web.job(*units), [1.0])


def test_a_cell_whose_values_contradict_each_other_is_refused(web: A1111) -> None:
    cell = web.job(unit(start=0.5))
    axis(web, "end").apply(cell, 0.2, [0.2])
    with pytest.raises(web.library("job").InstantStyleRefused):
        web.process(cell)
