"""Content prompts fall into weighted phrases as the WebUI reads emphasis, and no text is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.units.phrases import MAX_WEIGHT, PROBES, Phrase, parse_phrases, plain_prompt

PROMPTS = [
    ("a rabbit", [("a rabbit", 1.0)]),
    ("a rabbit, a forest", [("a rabbit", 1.0), ("a forest", 1.0)]),
    (" a  rabbit ,, \n a forest,", [("a rabbit", 1.0), ("a forest", 1.0)]),
    ("(a rabbit:1.3), a forest", [("a rabbit", 1.3), ("a forest", 1.0)]),
    ("(a rabbit, a forest : 1.3 )", [("a rabbit", 1.3), ("a forest", 1.3)]),
    ("(a rabbit), ((a forest)), [snow]", [("a rabbit", 1.1), ("a forest", 1.21), ("snow", 1 / 1.1)]),
    ("((a rabbit:1.5):0.5)", [("a rabbit", 0.75)]),
    (r"\(a rabbit\:1.3\), a \[forest\] \\", [(r"(a rabbit\:1.3)", 1.0), ("a [forest] \\", 1.0)]),
    ("a (red:2) cat", [("a red cat", 10 / 7)]),
    ("(a rabbit:0), (a forest:-1), snow", [("snow", 1.0)]),
    ("(a rabbit:99)", [("a rabbit", MAX_WEIGHT)]),
    ("a rabbit, (a rabbit:1.3), a rabbit", [("a rabbit", 1.3)]),
    ("(a rabbit", [("a rabbit", 1.1)]),
    ("a rabbit), snow]", [("a rabbit)", 1.0), ("snow]", 1.0)]),
    ("a clock at 9:30, 1:1", [("a clock at 9:30", 1.0), ("1:1", 1.0)]),
    ("a clock:1.3), snow", [("a clock:1.3)", 1.0), ("snow", 1.0)]),
    ("(a clock:1.2.3)", [("a clock:1.2.3", 1.1)]),
    ("(a [rabbit:1.2)", [("a rabbit", 1.2)]),
    ("", []),
    (" ,, (,) ", []),
]


@pytest.mark.parametrize(("text", "expected"), PROMPTS)
def test_prompt_falls_into_its_phrases(text: str, expected: list[tuple[str, float]]) -> None:
    found = parse_phrases(text)
    assert [phrase.text for phrase in found] == [words for words, _ in expected]
    assert [phrase.weight for phrase in found] == pytest.approx([weight for _, weight in expected])


@given(st.text(max_size=60) | st.text(alphabet="()[]\\:,.1-9e a", max_size=60))
def test_no_text_is_refused_and_every_phrase_is_one(text: str) -> None:
    found = parse_phrases(text)
    assert len({phrase.text for phrase in found}) == len(found)
    for phrase in found:
        assert phrase.text.strip() == phrase.text != ""
        assert 0 < phrase.weight <= MAX_WEIGHT


@given(st.lists(st.text(alphabet="abc ", min_size=1, max_size=8), max_size=5))
def test_plain_words_between_commas_stay_as_they_are(words: list[str]) -> None:
    expected = dict.fromkeys(" ".join(word.split()) for word in words if word.strip())
    assert parse_phrases(",".join(words)) == tuple(map(Phrase, expected))


def test_endless_brackets_and_digits_are_survived() -> None:
    assert parse_phrases("(" * 2000) == ()
    assert parse_phrases("(" * 999 + "a" + ")" * 999) == (Phrase("a", MAX_WEIGHT),)
    assert parse_phrases("(a:" + "9" * 500 + ")") == (Phrase("a", MAX_WEIGHT),)


def test_probes_are_each_one_plain_phrase() -> None:
    assert parse_phrases(", ".join(PROBES)) == tuple(map(Phrase, PROBES))


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("a house by the sea", "a house by the sea"),
        ("a (house:1.3) by ((the)) [sea]", "a house by the sea"),
        ("a house <lora:ink:0.8>, <hypernet:x:1> by the sea", "a house, by the sea"),
        ("a house BREAK by the sea", "a house, by the sea"),
        ("a house :1.2 AND the sea:0.5", "a house, the sea:0.5"),
        ("a [cat:dog:0.5] in [snow:0.3], [red:green::][rain::7]", "a dog in snow, red:green::"),
        ("a [cat:[dog:fox:0.9]:0.5]", "a fox"),
        ("a [cat|dog|fox] in snow", "a cat in snow"),
        (r"a house \(old\)", "a house (old)"),
        ("BREAKFAST AND more, , ,", "BREAKFAST, more"),
        ("<3 lora <a>", "<3 lora <a>"),
        ("", ""),
        (" , <lora:x:1>", ""),
    ],
)
def test_plain_prompts_are_free_of_orders_to_the_webui(prompt: str, plain: str) -> None:
    assert plain_prompt(prompt) == plain


@given(st.text(alphabet="ab ,:()[]|<>\\0.5ANDBREAK", max_size=60))
def test_plain_prompts_come_of_any_text(prompt: str) -> None:
    assert isinstance(plain_prompt(prompt), str)
