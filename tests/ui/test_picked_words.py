"""Picking words from a list, in a prompt that people also write by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.ui.picked_words import parts, picked_in, with_picked

OFFERED = ["rabbit", "forest", "old man"]


def test_a_picked_word_goes_to_the_end_of_what_was_written() -> None:
    assert with_picked("(a moon:1.2)", OFFERED, ["rabbit"]) == "(a moon:1.2), rabbit"


def test_a_word_that_is_not_picked_any_more_leaves() -> None:
    assert with_picked("rabbit, a moon, forest", OFFERED, ["forest"]) == "a moon, forest"


def test_a_word_that_was_only_part_of_a_phrase_stays() -> None:
    assert with_picked("a white rabbit, old man with a hat", OFFERED, []) == "a white rabbit, old man with a hat"


def test_a_picked_word_that_stands_there_already_is_not_written_twice() -> None:
    assert with_picked(" rabbit ,forest", OFFERED, ["forest", "rabbit"]) == "rabbit, forest"


def test_words_written_by_hand_count_as_picked() -> None:
    assert picked_in("old man, a moon,rabbit", OFFERED) == ["rabbit", "old man"]


@given(st.text("ab ,()", max_size=30), st.sets(st.sampled_from(OFFERED)))
def test_what_is_picked_is_what_then_stands_in_the_prompt(prompt: str, picked: set[str]) -> None:
    made = with_picked(prompt, OFFERED, sorted(picked))
    assert set(picked_in(made, OFFERED)) == picked
    assert [part for part in parts(made) if part not in OFFERED] == [p for p in parts(prompt) if p not in OFFERED]
