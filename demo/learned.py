"""B-LoRAs of references: each is trained once, by the project's own tool, on the model that is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_instantstyle.standalone import StandaloneHost
from lib_instantstyle.standalone.training import Settings, train

from .trials import Trial


@dataclass
class Learner:
    """Keeps what it trains under a folder. `base`: the model by name; None: the host's own, written there first."""

    host: StandaloneHost
    folder: Path
    base: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)  # of the published recipe
    _hosts: dict[int, StandaloneHost] = field(default_factory=dict)

    def host_of(self, trial: Trial) -> StandaloneHost:
        """A host on the same pipeline that has the trial's B-LoRA, under the name b-lora."""
        if id(trial.reference) not in self._hosts:
            out = self.folder / f"reference-{len(self._hosts)}"
            out.mkdir(parents=True, exist_ok=True)
            trial.reference.save(out / "reference.png")
            given = {"prompt": trial.content, "save_every": 10**6, "quiet": True, **self.changes}
            device = {"cpu": self.host.pipe.device.type == "cpu"}
            settings = Settings.for_b_lora(self._base(), out / "reference.png", out / "run", **device, **given)
            self._hosts[id(trial.reference)] = StandaloneHost(self.host.pipe, [train(settings).adapter])
        return self._hosts[id(trial.reference)]

    def _base(self) -> str | Path:
        if self.base is not None:
            return self.base
        folder = self.folder / "base"
        if not folder.is_dir():
            self.host.pipe.save_pretrained(folder)
        return folder
