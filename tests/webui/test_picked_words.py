"""Picking words from a list, in a prompt that people also write by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.webui.panel.picked_words import parts, picked_in, toggled

OFFERED = ["rabbit", "forest", "old man"]


def test_a_picked_word_goes_to_the_end_of_what_was_written() -> None:
    assert toggled("(a moon:1.2)", "rabbit", True) == "(a moon:1.2), rabbit"


def test_a_word_that_is_not_picked_any_more_leaves() -> None:
    assert toggled("rabbit, a moon, forest", "rabbit", False) == "a moon, forest"


def test_other_offered_words_stay_whatever_the_chips_show() -> None:
    assert toggled("forest", "rabbit", True) == "forest, rabbit"


def test_a_word_that_was_only_part_of_a_phrase_stays() -> None:
    assert toggled("a white rabbit, rabbit hole", "rabbit", False) == "a white rabbit, rabbit hole"


def test_a_picked_word_that_stands_there_already_is_not_written_twice() -> None:
    assert toggled(" rabbit ,forest", "rabbit", True) == "rabbit, forest"


def test_a_word_with_a_weight_is_the_word() -> None:
    assert picked_in("(rabbit:1.3), a moon", OFFERED) == ["rabbit"]
    assert toggled("(rabbit:1.3), a moon", "rabbit", True) == "(rabbit:1.3), a moon"
    assert toggled("(rabbit:1.3), a moon", "rabbit", False) == "a moon"


def test_words_written_by_hand_count_as_picked() -> None:
    assert picked_in("old man, a moon,rabbit", OFFERED) == ["rabbit", "old man"]


@given(st.text("ab ,()", max_size=30), st.lists(st.tuples(st.sampled_from(OFFERED), st.booleans())))
def test_what_is_picked_is_what_then_stands_in_the_prompt(prompt: str, clicks: list[tuple[str, bool]]) -> None:
    made = prompt
    for word, is_picked in clicks:
        made = toggled(made, word, is_picked)
    assert set(picked_in(made, OFFERED)) == {word for word, is_picked in dict(clicks).items() if is_picked}
    assert [part for part in parts(made) if part not in OFFERED] == parts(prompt)
