"""What encoding a content prompt leaves behind in the WebUI: nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111


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
