"""What the world's two text towers make of captions, as an SDXL pipeline hands it to the UNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import models, packing, words
from .clip import Towers
from .models import CONTEXT_LENGTH

SAID = 16  # tokens that are told apart; all places behind them hold the end of text, and change but slowly
TAILS = ((16, 24), (24, 40), (40, CONTEXT_LENGTH))  # those places in groups, each read as its mean
MASK_UNIT = 1e4  # diffusers' attention mask: a token of weight w has −(1 − w) · MASK_UNIT added to its score


@dataclass(frozen=True, eq=False)
class Prompts:
    """Contexts of n captions: (n, SAID + TAILS, width) tokens and (n, pooled width) pooled embeddings."""

    tokens: Tensor
    pooled: Tensor

    def __getitem__(self, picked: Tensor) -> Prompts:
        return Prompts(self.tokens[picked], self.pooled[picked])

    @property
    def mask(self) -> Tensor:
        """(n, SAID + TAILS) weights: a token that stands for m alike has log m added to its score."""
        meant = torch.tensor([1.0] * SAID + [float(stop - start) for start, stop in TAILS])
        return (1 + meant.log() / MASK_UNIT).expand(len(self.tokens), -1)


def idle_layers(tower: nn.Module, trained: int) -> None:
    """Make the layers of a text tower behind the trained ones pass their input on."""
    for name, parameter in tower.named_parameters():
        number = name.partition("layers.")[2].partition(".")[0]
        if number and int(number) >= trained and name.rsplit(".", 2)[-2] in ("out_proj", "fc2"):
            nn.init.zeros_(parameter)


def full_towers(
    trained: Towers, vocabulary: int, depths: tuple[int, int] = (models.CLIP_LAYERS, models.OPEN_CLIP_LAYERS)
) -> tuple[nn.Module, nn.Module]:
    """Both text towers at a checkpoint's depths, or at less: first the trained layers, then idle ones."""
    small = models.clip_text_tower(vocabulary, depths[0])
    large = models.open_clip_text_tower(vocabulary, depths[1])
    for whole, part in ((small, trained.small), (large, trained.large)):
        idle_layers(whole, models.TRAINED_LAYERS)
        state = packing.text_state(whole) | _spread(packing.text_state(part), vocabulary)
        packing.load_text_tower(whole, state)
        whole.eval().requires_grad_(False)
    return small, large


def _spread(state: packing.State, vocabulary: int) -> packing.State:
    """Give the known tokens' rows the places they have in a vocabulary of that size.

    Token 0 fills texts up in open_clip, and the end of text in transformers: both get the same row.
    """
    name = "text_model.embeddings.token_embedding.weight"
    known = state[name]
    if vocabulary == len(known):
        return state
    rows = known.new_zeros(vocabulary, known.shape[1])
    rows[list(words.known_tokens())] = known
    rows[0] = known[-1]
    return {**state, name: rows}


@torch.no_grad()
def read_prompts(trained: Towers, captions: Sequence[str]) -> Prompts:
    """Read captions of at most SAID tokens with the trained towers."""
    small, large = full_towers(trained, len(words.known_tokens()), (models.TRAINED_LAYERS + 1,) * 2)
    tokens, pooled = [], []
    for start in range(0, len(captions), 256):
        numbers = words.token_ids(list(captions[start : start + 256]))
        ways = [tower(numbers, output_hidden_states=True) for tower in (small, large)]
        every = torch.cat([way.hidden_states[-2] for way in ways], -1)
        tails = [every[:, start:stop].mean(1, keepdim=True) for start, stop in TAILS]
        tokens.append(torch.cat([every[:, :SAID], *tails], 1))
        pooled.append(ways[1].text_embeds)
    return Prompts(torch.cat(tokens), torch.cat(pooled))
