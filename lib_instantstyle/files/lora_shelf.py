"""The LoRA files there are, by name: people have hundreds, so none is opened but the one that is meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..units.errors import CheckpointError, LoraNotFoundError
from ..units.fields import shown
from .loras import LoraInfo, inspect_lora
from .shelf import Shelf

ANY_FILE = ""  # a LoRA has no word in its table of names that all of them have
IN_THE_WEBUI = "Put its file into the WebUI's LoRA folder, models/Lora, and use its name without the extension."
LONGEST_NAME = 120  # characters of a wrong name that are compared with the others


@dataclass
class LoraShelf:
    """LoRAs in some folders."""

    folders: Callable[[], Sequence[Path]]  # most important first; a file stands for itself
    way_out: str = IN_THE_WEBUI  # how one comes to be among them

    def __post_init__(self) -> None:
        self._shelf: Shelf[LoraInfo] = Shelf(self.folders, ANY_FILE, inspect_lora, "name")

    def names(self) -> list[str]:
        """What the files that may be LoRAs are called, in the order of the alphabet; nothing is opened."""
        return sorted({path.stem for path in self._shelf.paths()}, key=str.lower)

    def named(self, name: str) -> LoraInfo:
        """The LoRA of that name. Raises LoraNotFoundError, or the CheckpointError that says why it is refused."""
        found = self._shelf.named(name)
        if isinstance(found, CheckpointError):
            raise CheckpointError(found.message, "lora")
        if found is None:
            near = difflib.get_close_matches(name[:LONGEST_NAME], self.names(), n=3, cutoff=0.4)
            meant = f"Did you mean {' or '.join(near)}? " if near else ""
            raise LoraNotFoundError(f"There is no LoRA called {shown(name)}. {meant}{self.way_out}", "lora")
        return found
