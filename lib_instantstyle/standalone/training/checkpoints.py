"""The state of a training on disk: whole or not at all, and enough to go on as if nothing had happened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...files.whole_files import write_whole
from ...units.errors import InstantStyleError
from .materials import Materials

FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d+)\.pt")

State = dict[str, Any]  # tensors, numbers, text, and dicts and lists of them


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one output folder."""

    out: Path
    keep: int

    def paths(self) -> list[Path]:
        """All there are, the latest last."""
        found = [(int(named[1]), path) for path in self._all() if (named := _NAME.fullmatch(path.name))]
        return [path for _, path in sorted(found)]

    def save(self, step: int, state: State) -> Path:
        """Write a checkpoint, and delete the oldest ones beyond those kept."""
        path = self.out / FOLDER / f"step-{step:07}.pt"
        write_whole(path, lambda partial: torch.save({**state, "step": step}, partial))
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def latest(self) -> State | None:
        """The latest checkpoint that can be read, or None."""
        for path in reversed(self.paths()):
            try:
                found: State = torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # a disk that was full, a file cut short: torch says so in many ways
                continue
            return found
        return None

    def _all(self) -> list[Path]:
        folder = self.out / FOLDER
        return list(folder.iterdir()) if folder.is_dir() else []


def check_same(told: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InstantStyleError unless a checkpoint was made by the training that is to go on."""
    for name in now:
        if told.get(name) != now[name]:
            raise InstantStyleError(
                f"The checkpoint was made with {name} {told.get(name)!r}, but this run has {now[name]!r}, so it "
                "cannot be resumed. Use the same setting, or another --out with --init for a new training.",
                name,
            )


def refuse_used(out: Path) -> None:
    """Raise InstantStyleError when the folder holds another training, which would be written over."""
    if Checkpoints(out, 1).paths():
        raise InstantStyleError(
            f"{out} already contains the checkpoints of a training. Add --resume to continue it, or use another --out.",
            "out",
        )


def metadata(materials: Materials, step: int, samples: int) -> dict[str, str]:
    """What an adapter's file says of its training, after `step` steps of so many samples each."""
    settings, files = materials.settings, materials.files
    told = {
        "trained_with": f"sd-webui-instantstyle {__version__}",
        "base": Path(settings.base).name,
        "encoder": files.encoder.name if files.encoder else "none",
        "kind": settings.kind,
        "blocks": ", ".join(f"{group.name}={group.share:g}" for group in materials.groups),
        "steps": str(step),
        "samples_per_step": str(samples),
        "size": str(settings.size),
        "rate": f"{settings.rate:g}",
        "weighting": settings.weighting,
        "seed": str(settings.seed),
    }
    return {**told, "init": files.init.name} if files.init else told
