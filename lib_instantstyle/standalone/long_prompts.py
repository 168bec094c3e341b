"""Prompts longer than CLIP's 77 tokens: read in chunks, as the WebUI does; and phrases, which cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..files.text_towers import Tokenizer
from ..reference.removal import content_phrases
from ..units.errors import UnitError
from ..units.unit import StyleUnit

CHUNK = 75  # tokens between start and end
BACKTRACK = 20  # tokens that move to the next chunk where a comma stands before them, the WebUI's default
COMMA = ",</w>"


@dataclass(frozen=True, eq=False)
class ReadPrompt:
    """What a pipeline's text encoders say of a prompt."""

    states: Tensor  # (1, 77 · chunks, cross_attention_dim): penultimate states, both encoders side by side
    pooled: Tensor  # (1, width): of the first chunk, as in the WebUI


def chunks_of(tokens: Sequence[int], comma: int) -> list[list[int]]:
    """At most 75 tokens each, parted behind a comma where one is near: modules/sd_hijack_clip.py, tokenize_line."""
    chunks: list[list[int]] = [[]]
    last_comma = -1
    for token in tokens:
        chunk = chunks[-1]
        if len(chunk) == CHUNK:
            near = token != comma and last_comma >= 0 and CHUNK - last_comma <= BACKTRACK
            moved = chunk[last_comma + 1 :] if near else []
            del chunk[CHUNK - len(moved) :]
            chunks.append(moved)
            last_comma = -1
        elif token == comma:
            last_comma = len(chunk)
        chunks[-1].append(token)
    return chunks


def prompt_arguments(pipe: Any, prompt: str, negative: str, guided: bool) -> dict[str, Any]:
    """What `pipe` is called with: the texts where CLIP reads them whole, else the embeddings of their chunks."""
    parted, parted_negative = (_parted(pipe, text) for text in (prompt, negative))
    if max(map(len, (parted, parted_negative))) == 1:
        return {"prompt": prompt, "negative_prompt": negative or None}
    count = max(len(parted), len(parted_negative)) if guided else len(parted)
    read = _read(pipe, parted, count)
    given = {"prompt_embeds": read.states, "pooled_prompt_embeds": read.pooled}
    if guided:
        zeros = not negative and pipe.config.force_zeros_for_empty_prompt
        against = _read(pipe, parted_negative, count)
        given |= {
            "negative_prompt_embeds": torch.zeros_like(read.states) if zeros else against.states,
            "negative_pooled_prompt_embeds": torch.zeros_like(read.pooled) if zeros else against.pooled,
        }
    return given


def check_phrases(unit: StyleUnit, tokenize: Tokenizer) -> None:
    """Raise UnitError where a phrase of the content is longer than what CLIP sums up in one embedding."""
    for phrase in content_phrases(unit) if unit.enabled and unit.removes_content else ():
        count = len(tokenize(phrase.text))
        if count > CHUNK:
            raise UnitError(
                f"The content to remove is read as one phrase of {count} tokens, but CLIP reads only {CHUNK}. Shorten "
                "it, or split it with commas and use the method project.",
                "content_prompt",
            )


def _parted(pipe: Any, text: str) -> list[list[int]]:
    tokenizer = pipe.tokenizer_2
    tokens = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return chunks_of(tokens, tokenizer.convert_tokens_to_ids(COMMA))


@torch.no_grad()
def _read(pipe: Any, chunks: Sequence[Sequence[int]], count: int) -> ReadPrompt:
    """With empty chunks behind, so that there are `count`."""
    filled = [*chunks, *([()] * (count - len(chunks)))]
    towers = ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
    found = [_states(pipe, *tower, filled) for tower in towers if tower[1] is not None]
    states = torch.cat([states for states, _ in found], dim=-1)  # (count, 77, cross_attention_dim)
    return ReadPrompt(states.flatten(0, 1)[None], found[-1][1][:1])


def _states(pipe: Any, tokenizer: Any, encoder: Any, chunks: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(chunks, 77, width) penultimate states, and what comes first of the encoder: (chunks, width) of the second."""
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    rows = [[start, *chunk, end, *([pad] * (CHUNK - len(chunk)))] for chunk in chunks]
    said = encoder(torch.tensor(rows, device=pipe._execution_device), output_hidden_states=True)
    return said.hidden_states[-2], said[0]
