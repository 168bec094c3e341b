"""What preparing a unit reads, what it takes for a moment and what stays, ours and others'."""

from __future__ import annotations

import ctypes
import gc
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_instantstyle.files.tensor_files import SafetensorsFile
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.unit import StyleUnit

from .controlnet import ControlNet, ControlNetMissing
from .host import BenchHost
from .peers import bytes_of, loaded
from .report import Cell, Table, not_run
from .sampling import picture

MIB = 2**20
UNITS = {
    "style": StyleUnit(image=(picture(0),)),
    "style_and_layout": StyleUnit(image=(picture(0),), preset="style_and_layout"),
    "original": StyleUnit(image=(picture(0),), preset="original"),
}
COLUMNS = {"MiB read of the file": ",.2f", "MiB kept": ",.3f", "MiB at the peak": ",.1f", "encoders left": ""}


@dataclass(frozen=True)
class Files:
    """One adapter and one encoder on disk, and the UNet they are for: its shapes are all that is asked."""

    unet: Any
    folder: Path
    device: torch.device
    dtype: torch.dtype

    @property
    def adapter(self) -> Path:
        return self.folder / "adapters" / "adapter.safetensors"

    def host(self, cache: Path) -> BenchHost:
        return BenchHost(self.unet, self.folder, cache)

    def nested(self) -> dict[str, dict[str, Tensor]]:
        """The adapter as a whole, as others load it."""
        groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in load_file(str(self.adapter)).items():
            group, _, key = name.partition(".")
            groups[group][key] = tensor
        return groups


def measure(files: Files, controlnet: Path | None) -> Table:
    """Each preset prepared by a fresh session with an empty cache, so that the image encoder is loaded, too."""
    rows = {name: _prepared(files, unit) for name, unit in UNITS.items()}
    modules, peak = _watched(lambda: loaded(files.unet, files.adapter, files.device, files.dtype))
    whole = files.adapter.stat().st_size / MIB
    precision = str(files.dtype).removeprefix("torch.")
    rows[f"diffusers, any preset, {precision}"] = _row(whole, bytes_of(modules), peak)
    del modules
    try:
        theirs, peak = _watched(lambda: _of_controlnet(files, controlnet))
        rows["ControlNet, any preset, float32"] = _row(whole, theirs.resident, peak)
    except ControlNetMissing as error:
        rows["ControlNet"] = not_run(str(error))
    note = (
        f"The file has {whole:,.2f} MiB. Kept: until 16 other units were used; a job adds a copy for its rows. "
        "Peak: memory of our own above what was there before, image encoder included where one is loaded."
    )
    return Table("preparing one unit", COLUMNS, rows, note)


def _of_controlnet(files: Files, checkout: Path | None) -> ControlNet:
    theirs = ControlNet(checkout, files.unet, files.nested())
    theirs.model.to("cpu", torch.float32)  # as its hook does
    return theirs


def _row(read: float, kept: int, peak: float | None) -> dict[str, Cell]:
    return {
        COLUMN_READ: read,
        COLUMN_KEPT: kept / MIB,
        COLUMN_PEAK: "not measured on this system" if peak is None else peak,
    }


COLUMN_READ, COLUMN_KEPT, COLUMN_PEAK, COLUMN_LEFT = COLUMNS


def _prepared(files: Files, unit: StyleUnit) -> dict[str, Cell]:
    cache = files.folder / "cache-of-memory"
    session = StyleSession(files.host(cache))
    plans, before = session.plan((unit,)), _encoders_alive()
    with _counting() as read:
        _, peak = _watched(lambda: session.attach(plans))
    session.detach()
    shutil.rmtree(cache, ignore_errors=True)
    return {**_row(sum(read) / MIB, kept_bytes(session), peak), COLUMN_LEFT: str(_encoders_alive() - before)}


def kept_bytes(session: StyleSession) -> int:
    """Keys and values that stay in memory between jobs."""
    pairs = (pair for layers in session._kept.values() for pair in layers.values())
    return sum(tensor.numel() * tensor.element_size() for pair in pairs for tensor in pair)


def _encoders_alive() -> int:
    gc.collect()
    return sum(
        type(thing).__name__ == "CLIPVisionModelWithProjection" for thing in gc.get_objects() if _is_module(thing)
    )


def _is_module(thing: object) -> bool:
    return issubclass(type(thing), nn.Module)


@contextmanager
def _counting() -> Iterator[list[int]]:
    """Bytes of the adapter's tensors as they are read; the encoder's are not counted."""
    read, found = SafetensorsFile.read, []

    def read_and_count(self: SafetensorsFile, name: str) -> Tensor:
        tensor = read(self, name)
        if name.startswith(("image_proj.", "ip_adapter.")):
            found.append(tensor.numel() * tensor.element_size())
        return tensor

    with mock.patch.object(SafetensorsFile, "read", read_and_count):
        yield found


def _watched(work: Callable[[], Any]) -> tuple[Any, float | None]:
    """What `work` gives, and the MiB of the process's own memory that it took at its peak; None: cannot be seen."""
    _trim()
    before, seen, done = own_memory(), [0.0], threading.Event()
    if before is None:
        return work(), None

    def look() -> None:
        while not done.wait(0.002):
            seen[0] = max(seen[0], own_memory() or 0.0)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        given = work()
    finally:
        done.set()
        watcher.join()
    return given, max(seen[0], own_memory() or 0.0) - before


def _trim() -> None:
    """Let the C library return what is free: memory that is taken out of it again would not be seen."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


def own_memory() -> float | None:
    """MiB of this process that are no file's; a mapped file costs nothing that others could use. None: not Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), None)
