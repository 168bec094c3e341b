"""What a training is asked to do, with the official recipe's numbers as defaults (tencent-ailab/IP-Adapter@62e4af9)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...units.errors import InstantStyleError

MOST = 2.0**53  # of what has no other end; infinity is beyond
KINDS = {"base": 4, "plus": 16}  # tokens of the published SDXL adapters
B_LORA = "b-lora"
# B-LoRA's own recipe (yardenfren1996/B-LoRA@e08380d): its settings where they differ from the adapters'.
B_LORA_RECIPE: dict[str, Any] = {
    "blocks": ("up_blocks.0.attentions.0+up_blocks.0.attentions.1",),  # content and style, which learn together
    "steps": 1000,
    "batch": 1,
    "rate": 5e-5,
    "weight_decay": 1e-4,
    "drop_image": 0.0,
    "drop_text": 0.0,
    "drop_both": 0.0,
}
SCHEDULES = ("constant", "cosine")
PRECISIONS = ("no", "fp16", "bf16")
WEIGHTINGS = ("noise", "picture")


@dataclass(frozen=True)
class Settings:
    """One training. Relative to the official recipe only `blocks` is new."""

    base: str | Path  # checkpoint file, diffusers folder or Hub id; stays frozen
    encoder: Path | None  # image encoder, file or folder; stays frozen; a B-LoRA has none
    data: Path  # folder of pictures, one picture, or WebDataset shards: a folder, one .tar, or a pattern with *
    out: Path
    blocks: tuple[str, ...] = ("style",)  # groups, each "address+address=share": presets or block addresses
    base_config: str | Path | None = None  # what describes a checkpoint file, where it does not lie beside it
    kind: str = "base"
    tokens: int | None = None  # None: 4 for base, 16 for plus
    rank: int = 64  # of a B-LoRA
    prompt: str = "A [v]"  # of a B-LoRA's pictures that have no caption
    init: Path | None = None  # adapter file to go on from
    steps: int = 10_000  # of the optimizer
    batch: int = 8  # pictures for each process and forward pass
    accumulate: int = 1  # forward passes for each step
    rate: float = 1e-4
    weight_decay: float = 1e-2
    warmup: int = 0  # steps in which the rate rises from 0
    schedule: str = "constant"
    clip: float = 0.0  # largest norm of the gradient; 0: as it is
    noise_offset: float = 0.0
    weighting: str = "noise"  # of the loss by timestep; "picture": by what an error does to the picture
    drop_image: float = 0.05  # share of samples without the image prompt
    drop_text: float = 0.05  # … without the text prompt
    drop_both: float = 0.05  # … without both
    size: int | None = None  # pixels; None: the model's own
    random_crop: bool = False  # without the cache only
    cache: bool = True  # encode every picture and caption once; never for shards
    workers: int = 4  # threads that read pictures
    precision: str | None = None  # None: as Accelerate is configured
    cpu: bool = False
    seed: int = 0
    save_every: int = 1000
    keep: int = 2  # checkpoints
    resume: bool = False
    sample_every: int = 0  # 0: no samples
    sample_prompts: tuple[str, ...] = ()  # none: the first pictures' captions
    sample_steps: int = 20
    sample_guidance: float = 5.0
    quiet: bool = False

    def check(self) -> None:
        """Raise InstantStyleError where a value is out of range, before anything is opened."""
        for name, holds, rule in _RULES:
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise InstantStyleError(f"{name} must be {rule}, got {value!r}.", name)
        if self.drop_image + self.drop_text + self.drop_both > 1:
            raise InstantStyleError("drop_image, drop_text and drop_both must not exceed 1 together.", "drop_image")
        self._check_kind()
        if self.random_crop and self.cache:
            raise InstantStyleError(
                "A random crop makes a new picture each time, so encoded pictures cannot be cached. Add --no-cache.",
                "random_crop",
            )

    def _check_kind(self) -> None:
        if self.kind != B_LORA and self.encoder is None:
            raise InstantStyleError(
                f"An adapter of kind {self.kind} needs an image encoder; none was given.", "encoder"
            )
        for name in ("encoder", "tokens", "init") if self.kind == B_LORA else ():
            if getattr(self, name) is not None:
                raise InstantStyleError(f"A B-LoRA has no {name}. Leave it out.", name)

    @property
    def token_count(self) -> int | None:
        """Tokens of an image prompt; None for a B-LoRA."""
        return self.tokens or KINDS.get(self.kind)

    @classmethod
    def for_b_lora(cls, base: str | Path, data: Path, out: Path, **given: Any) -> Settings:
        """A training of a B-LoRA by its own recipe; whatever is given changes it."""
        return cls(base, None, data, out, kind=B_LORA, **{**B_LORA_RECIPE, **given})

    def plain(self) -> dict[str, Any]:
        """All values as text, numbers and lists."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


Rule = tuple[str, Callable[[Any], bool], str]


def _from(low: float, high: float, *names: str) -> list[Rule]:
    """Both ends included; what is not a number lies nowhere."""
    rule = f"{low:g} or more" if high == MOST else f"between {low:g} and {high:g}"
    return [(name, lambda value: low <= value <= high, rule) for name in names]


_RULES: list[Rule] = [
    ("kind", lambda value: value in (*KINDS, B_LORA), f"one of {', '.join((*KINDS, B_LORA))}"),
    ("schedule", lambda value: value in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    ("weighting", lambda value: value in WEIGHTINGS, f"one of {', '.join(WEIGHTINGS)}"),
    ("precision", lambda value: value in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    ("rate", lambda value: 0 < value <= MOST, "a number above 0"),
    ("size", lambda value: 64 <= value <= 8192 and value % 8 == 0, "a multiple of 8 between 64 and 8192"),
    *_from(1, MOST, "tokens", "rank", "steps", "batch", "accumulate", "save_every", "keep", "workers"),
    *_from(0, MOST, "weight_decay", "warmup", "clip", "noise_offset", "sample_every", "seed"),
    *_from(0, 1, "drop_image", "drop_text", "drop_both"),
    *_from(1, 1000, "sample_steps"),
    *_from(0, 100, "sample_guidance"),
]
