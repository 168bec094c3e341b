"""What encoding a content prompt leaves behind in the WebUI: nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("A dog BREAK a CAT", "a dog break a cat"),
        ("(a dog:1.5), [a cat]", r"\(a dog:1.5\), \[a cat\]"),
        (r"a \(dog", r"a \\\(dog"),
    ],
)
def test_a_content_prompt_gives_no_orders(web: A1111, text: str, read: str) -> None:
    assert web.library("hosts.texts").literally(text) == read


def test_an_inversion_is_told_by_the_vectors_of_every_text_encoder(web: A1111) -> None:
    def name(first: float, second: float) -> Any:
        vectors = {"clip_l": torch.full((1, 4), first), "clip_g": torch.full((1, 4), second)}
        database = SimpleNamespace(word_embeddings={"MyStyle": SimpleNamespace(vec=vectors)})
        return web.library("hosts.texts").inversions_in(["in MYSTYLE"], database)

    assert len({name(0, 0), name(0, 1), name(1, 0), ""}) == 4


def test_what_the_webui_notes_of_a_content_prompt_is_no_part_of_a_jobs_infotext(
    web: A1111, monkeypatch: pytest.MonkeyPatch
) -> None:
    hijack, encode = sys.modules["modules.sd_hijack"].model_hijack, web.sd_model.get_learned_conditioning
    hijack.extra_generation_params["Emphasis"] = "Original"

    def noting(texts: Sequence[str]) -> Any:
        hijack.extra_generation_params["TI hashes"] = "rabbit: 1234"
        hijack.comments.append("rabbit was used")
        return encode(texts)

    monkeypatch.setattr(web.sd_model, "get_learned_conditioning", noting)
    web.library("job").live_job().host.checkpoint_text_embeds(["a rabbit"])
    assert hijack.extra_generation_params == {"Emphasis": "Original"}
    assert hijack.comments == []
