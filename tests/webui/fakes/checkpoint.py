"""sgm's DiffusionEngine and its conditioner as sd_models_xl.py leaves them, with ldm's attention at a tiny size."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ...tiny import CONTEXT, LdmUnet
from ...tiny.clip import POOLED

SIZES_AND_CROPS = 6  # numbers that follow the pooled text in `vector`
CHUNK, WORDS = 7, 5  # tokens of a chunk (77 in CLIP), and how many words fill one
ESCAPED, BRACKET = re.compile(r"\\([()\[\]\\])"), re.compile(r"(?<!\\)[()]")


class Unet(LdmUnet):
    """Latents in, latents out: (rows, 4, height, width)."""

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        tokens = x.flatten(1).unflatten(1, (-1, 16))  # (rows, seq, 16)
        return super().forward(tokens, context).reshape(x.shape)


class OpenAIWrapper(nn.Module):
    """`sd_model.model`: the conditioning comes as the third positional argument, as sd_models_xl.py passes it."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = unet

    def forward(self, x: Tensor, t: Tensor, c: dict[str, Tensor]) -> Tensor:
        return self.diffusion_model(x, t, c["crossattn"])


class Checkpoint:
    """`shared.sd_model`."""

    cond_stage_key = "txt"

    def __init__(self, file: Path, networks: list[object], unet: nn.Module | None = None) -> None:
        self.model = OpenAIWrapper(unet or Unet())
        self.sd_checkpoint_info = SimpleNamespace(filename=str(file), name_for_extra=file.stem)
        self.conditioner = SimpleNamespace(embedders=[_embedder(None), _embedder(torch.zeros(8, POOLED))])
        self.lowvram = False
        self.read: list[str] = []  # by the text encoders, for tests to look at
        self._networks = networks  # LoRAs: in the text encoder as long as they are in this list

    def get_learned_conditioning(self, texts: Sequence[str]) -> dict[str, Tensor]:
        self.read += texts
        return conditioning(texts, len(self._networks), next(self.model.parameters()).dtype)


def conditioning(texts: Sequence[str], networks: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """What the text encoders make of the texts with that many LoRAs in them, which change what they say."""
    chunks = max(1, *(-(-len(text.split()) // WORDS) for text in texts))
    tokens = [_numbers(text, chunks * CHUNK * CONTEXT, networks).unflatten(0, (-1, CONTEXT)) for text in texts]
    pooled = [_numbers(text, POOLED + SIZES_AND_CROPS, networks) for text in texts]
    return {"crossattn": torch.stack(tokens).to(dtype), "vector": torch.stack(pooled).to(dtype)}


def _numbers(text: str, count: int, networks: int) -> Tensor:
    """Random by the text alone: brackets are emphasis unless escaped, capitals do not matter, LoRAs do."""
    strength = 1.1 ** len(BRACKET.findall(text)) + networks
    said = ESCAPED.sub(r"\1", BRACKET.sub("", text)).lower()
    made = torch.Generator().manual_seed(zlib.crc32(said.encode()))
    return strength * torch.randn(count, generator=made)


def _embedder(text_projection: Tensor | None) -> Any:
    """A text encoder in the WebUI's wrapper."""
    return SimpleNamespace(wrapped=SimpleNamespace(model=SimpleNamespace(text_projection=text_projection)))
