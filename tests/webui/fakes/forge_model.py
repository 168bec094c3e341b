"""Forge's backend and ldm_patched: a checkpoint's parts behind patchers, and the conditions a batch is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ...tiny.clip import POOLED
from .checkpoint import Unet, conditioning

LONGEST = 4  # times that a text is repeated to be as long as another


class ForgeUnet(Unet):
    """All but the first two arguments come by name, and nothing else is taken."""

    def forward(  # type: ignore[override]
        self, x: Tensor, timesteps: Tensor, *, context: Tensor, y: Tensor, transformer_options: dict[str, Any]
    ) -> Tensor:
        assert len(x) == len(context) == len(y)
        return super().forward(x, timesteps, context)


class KModel(nn.Module):
    """What a UNet's patcher holds (k_model.py, model_base.py)."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = unet

    def apply_model(self, x: Tensor, t: Tensor, *, c_crossattn: Tensor, **others: Any) -> Tensor:
        cast = {
            name: one.float() if isinstance(one, Tensor) and one.is_floating_point() else one
            for name, one in others.items()
        }
        return self.diffusion_model(x, t, context=c_crossattn, **cast)


class Patcher:
    """A model with what a job changes about it (unet_patcher.py, patcher/unet.py)."""

    def __init__(self, model: nn.Module, options: dict[str, Any] | None = None) -> None:
        self.model, self.model_options = model, options or {}

    def clone(self) -> Patcher:
        return Patcher(self.model, deepcopy(self.model_options))

    def add_conditioning_modifier(self, modifier: Callable[..., Any]) -> None:
        self.model_options.setdefault("conditioning_modifiers", []).append(modifier)


class Clip:
    """Both text encoders and their tokenizers; a LoRA of the prompt lies in a clone."""

    def __init__(self, networks: int = 0) -> None:
        tower = nn.Module()
        tower.text_projection = nn.Linear(POOLED, POOLED, bias=False)
        self.cond_stage_model = SimpleNamespace(clip_g=tower)
        self.tokenizer = SimpleNamespace(clip_l=lambda text, add_special_tokens: {"input_ids": list(map(ord, text))})
        self.networks = networks


class ForgeObjects:
    def __init__(self, unet: Patcher, clip: Clip) -> None:
        self.unet, self.clip = unet, clip

    def shallow_copy(self) -> ForgeObjects:
        return ForgeObjects(self.unet, self.clip)


class Engine:
    """`shared.sd_model`, once it is loaded."""

    def __init__(self, file: Path, note: Callable[[str], None], known: dict[str, Any]) -> None:
        self.sd_checkpoint_info = SimpleNamespace(filename=str(file), name_for_extra=file.stem)
        self.forge_objects = ForgeObjects(Patcher(KModel(ForgeUnet())), Clip())
        self.forge_objects_original = self.forge_objects.shallow_copy()
        self.text_processing_engine_g = SimpleNamespace(embeddings=SimpleNamespace(word_embeddings=known))
        self._note, self._known = note, known
        self.read: list[str] = []

    def get_learned_conditioning(self, texts: Sequence[str]) -> dict[str, Tensor]:
        self.read += texts
        for text in texts:
            if any(name in text for name in self._known):
                self._note(text)
        with torch.inference_mode():
            return conditioning(texts, self.forge_objects.clip.networks)


class Condition:
    """condition.py, conds.py"""

    def __init__(self, cond: Tensor) -> None:
        self.cond = cond

    def process_cond(self, batch_size: int, device: Any, area: Any) -> Condition:
        return type(self)(
            self.cond.repeat(math.ceil(batch_size / len(self.cond)), *[1] * (self.cond.dim() - 1))[:batch_size]
        )

    def can_concat(self, other: Condition) -> bool:
        return self.cond.shape == other.cond.shape

    def concat(self, others: Sequence[Condition]) -> Tensor:
        return torch.cat([self.cond, *(other.cond for other in others)])

    def size(self) -> list[int]:
        return list(self.cond.size())


class ConditionCrossAttn(Condition):
    def can_concat(self, other: Condition) -> bool:
        lengths = self.cond.shape[1], other.cond.shape[1]
        return math.lcm(*lengths) // min(lengths) <= LONGEST

    def concat(self, others: Sequence[Condition]) -> Tensor:
        conds = [self.cond, *(other.cond for other in others)]
        length = math.lcm(*(cond.shape[1] for cond in conds))
        return torch.cat([cond.repeat(1, length // cond.shape[1], 1) for cond in conds])


def compiled(cond: dict[str, Tensor], rows: Sequence[int] | None = None) -> dict[str, Any]:
    """One condition: only text and vector of what a conditioning holds."""
    picked = {name: cond[name] if rows is None else cond[name][list(rows)] for name in ("crossattn", "vector")}
    conds = {"c_crossattn": ConditionCrossAttn(picked["crossattn"]), "y": Condition(picked["vector"])}
    return {"model_conds": conds, "strength": 1.0}
