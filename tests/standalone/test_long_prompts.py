"""What is longer than CLIP's 77 tokens is read on in chunks or refused, and never dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lib_instantstyle.standalone import Job, StandaloneHost
from lib_instantstyle.standalone.long_prompts import chunks_of, prompt_arguments
from lib_instantstyle.units.errors import UnitError

from ..jobs import unit

FULL, MORE = " ".join(["a"] * 75), "red cat on the roof"
COMMA = -1


def encoded(pipe: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 77, width) and (1, width), as diffusers reads a text of one chunk."""
    states, _, pooled, _ = pipe.encode_prompt(text, num_images_per_prompt=1, do_classifier_free_guidance=False)
    return states, pooled


def test_chunks_are_read_one_by_one_and_laid_side_by_side(host: StandaloneHost) -> None:
    given = prompt_arguments(host.pipe, f"{FULL} {MORE}", "a cat", guided=True)
    first, pooled = encoded(host.pipe, FULL)
    torch.testing.assert_close(given["prompt_embeds"], torch.cat([first, encoded(host.pipe, MORE)[0]], dim=1))
    torch.testing.assert_close(given["pooled_prompt_embeds"], pooled)
    against, against_pooled = encoded(host.pipe, "a cat")
    wanted = torch.cat([against, encoded(host.pipe, "")[0]], dim=1)  # as many chunks, an empty one behind
    torch.testing.assert_close(given["negative_prompt_embeds"], wanted)
    torch.testing.assert_close(given["negative_pooled_prompt_embeds"], against_pooled)


def test_an_empty_negative_prompt_is_zeros_where_the_pipeline_has_it_so(host: StandaloneHost) -> None:
    settings = {"force_zeros_for_empty_prompt": True, "add_watermarker": False}
    given = prompt_arguments(type(host.pipe)(**host.pipe.components, **settings), f"{FULL} {MORE}", "", guided=True)
    assert not given["negative_prompt_embeds"].any()
    assert given["negative_prompt_embeds"].shape == given["prompt_embeds"].shape
    assert prompt_arguments(host.pipe, f"{FULL} {MORE}", "", guided=False).keys() == {
        "prompt_embeds",
        "pooled_prompt_embeds",
    }


def test_a_prompt_of_one_chunk_goes_to_the_pipeline_as_it_stands(host: StandaloneHost) -> None:
    assert prompt_arguments(host.pipe, FULL, "", guided=True) == {"prompt": FULL, "negative_prompt": None}


def test_the_last_words_of_a_long_prompt_change_the_picture(host: StandaloneHost, job: Callable[..., Job]) -> None:
    made = [
        np.asarray(host.generate(job(units=(unit(),), steps=1, **words))[0]).astype(int)
        for words in (
            {"prompt": f"{FULL} cat"},
            {"prompt": f"{FULL} rabbit"},
            {"prompt": "a cat", "negative": f"{FULL} cat"},
            {"prompt": "a cat", "negative": f"{FULL} rabbit"},
        )
    ]
    assert np.abs(made[0] - made[1]).max() > 0
    assert np.abs(made[2] - made[3]).max() > 0


def test_chunks_part_behind_a_comma_that_is_near() -> None:
    words = list(range(1, 101))
    assert [len(chunk) for chunk in chunks_of(words, COMMA)] == [75, 25]
    near, far = words.copy(), words.copy()
    near[60], far[40] = COMMA, COMMA
    assert [len(chunk) for chunk in chunks_of(near, COMMA)] == [61, 39]
    assert [len(chunk) for chunk in chunks_of(far, COMMA)] == [75, 25]
    for tokens in (near, far, [COMMA] * 200, []):
        assert [token for chunk in chunks_of(tokens, COMMA) for token in chunk] == tokens
        assert all(len(chunk) <= 75 for chunk in chunks_of(tokens, COMMA))


def test_content_that_is_no_short_phrase_is_refused(host: StandaloneHost, job: Callable[..., Job]) -> None:
    asked = unit(content_prompt=f"{FULL} a", content_method="subtract")
    with pytest.raises(UnitError, match="76 tokens") as caught:
        host.plan(job(units=(unit(), asked)))
    assert (caught.value.unit, caught.value.field) == (2, "content_prompt")
    with pytest.raises(UnitError, match="76 tokens"), host.styled([asked]):
        pass
    assert host.plan(
        job(units=(unit(content_prompt=FULL), unit(content_prompt=f"{FULL}, a", content_method="project")))
    )
