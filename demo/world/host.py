"""The world under InstantStyle's standalone host."""

from __future__ import annotations

from pathlib import Path

from lib_instantstyle.standalone import StandaloneHost

from . import assembly
from .clip import trained_towers
from .export import write_adapter


def open_world(folder: Path) -> StandaloneHost:
    """The world's pipeline with its adapter and encoder, whose files are written to `folder`.

    The UNet comes without its idle layers: the same pictures to the last bit, in half the time.
    """
    encoder = folder / "encoder"
    encoder.mkdir(parents=True, exist_ok=True)
    trained_towers().save_encoder(encoder)
    adapter = write_adapter(folder / "adapter.safetensors", compact=True)
    return StandaloneHost(assembly.pipeline(compact=True), [adapter], [encoder], cache=folder)
