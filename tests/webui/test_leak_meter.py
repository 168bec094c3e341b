"""The leak meter's HTML: lengths that mean something, and nothing of a prompt that becomes markup."""

from __future__ import annotations

import re

import pytest

from lib_instantstyle.reference.analysis import Meter
from lib_instantstyle.reference.removal import Leak
from lib_instantstyle.webui.panel.leak_meter import FULL, meter_html, problem_html


def widths(html: str) -> list[float]:
    return [float(found) for found in re.findall(r"width:([\d.]+)%", html)]


def test_each_phrase_has_a_bar_before_and_one_after() -> None:
    html = meter_html(Meter((Leak("a rabbit", FULL, FULL / 2), Leak("a moon", FULL / 4, 0.0)), None))
    assert widths(html) == [100.0, 50.0, 25.0, 0.0]
    assert "0.40 → 0.20" in html
    assert "instantstyle-overshot" not in html


def test_a_similarity_above_the_usual_stretches_the_whole_scale() -> None:
    assert widths(meter_html(Meter((Leak("a", 0.8, 0.4), Leak("b", 0.2, 0.1)), None))) == [100.0, 50.0, 25.0, 12.5]


def test_taking_more_than_there_was_is_marked_and_explained() -> None:
    html = meter_html(Meter((Leak("a rabbit", 0.3, -0.2),), None))
    assert "instantstyle-overshot" in html
    assert widths(html) == [75.0, 50.0]
    assert "A negative value" in html


@pytest.mark.parametrize("scale", [0.0, 0.714])
def test_the_scale_that_auto_picks_is_told(scale: float) -> None:
    assert f"Project at {scale:.2f}" in meter_html(Meter((Leak("a", 0.3, 0.1),), scale))


def test_without_phrases_it_says_what_to_do() -> None:
    assert "Tick words" in meter_html(Meter((), None))


def test_a_phrase_cannot_become_markup() -> None:
    hostile = '<img src=x onerror="alert(1)">'
    for html in (meter_html(Meter((Leak(hostile, 0.1, 0.1),), None)), problem_html(hostile)):
        assert "<img" not in html


def test_a_model_page_that_is_named_can_be_clicked_and_nothing_else() -> None:
    shown = problem_html("Put it (huggingface.co/laion/CLIP-ViT-H-14) there, not evil.example/x.")
    assert '<a href="https://huggingface.co/laion/CLIP-ViT-H-14" target="_blank"' in shown
    assert shown.count("<a ") == 1
