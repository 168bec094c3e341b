"""What the sources of a style without an adapter cost: the arithmetic of a step, on shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.unit import StyleUnit

from .flops import META, flops, more
from .host import BenchHost
from .models import Size, make_unet, marks, unet_inputs
from .report import Cell, Table
from .sampling import picture

RANK = 64  # a B-LoRA's
BLOCKS = ("up_blocks.0.attentions.0", "up_blocks.0.attentions.1")
LEAVES = tuple(f"{one}.{leaf}" for one in ("attn1", "attn2") for leaf in ("to_q", "to_k", "to_v", "to_out.0"))
LEADING = "shared, the first picture leads"
SOURCES: dict[str, dict[str, Any]] = {
    "swapped": {"method": "swapped"},
    "swapped, guarded": {"method": "swapped", "leak_guard": True},
    "swapped, weight 0.5": {"method": "swapped", "weight": 0.5},
    "shared": {"method": "shared"},
    LEADING: {"method": "shared", "image": ()},
    "LoRA of rank 64, style block": {"method": "lora", "lora": "bench", "image": ()},
}


def write_lora(unet: nn.Module, folder: Path) -> None:
    """A B-LoRA's file, for the layers of a UNet."""
    pairs = {}
    for layer in attention_layers(unet):
        for leaf in LEAVES if layer.block in BLOCKS else ():
            path = f"{layer.names[0].removesuffix('attn2')}{leaf}"
            out, width = unet.get_submodule(path).weight.shape
            pairs[f"unet.{path}.lora.down.weight"] = torch.full((RANK, width), 1e-3)
            pairs[f"unet.{path}.lora.up.weight"] = torch.full((out, RANK), 1e-3)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(pairs, str(folder / "bench.safetensors"))


def count(size: Size, folder: Path, pixels: int, batches: tuple[int, ...] = (1, 4)) -> Table:
    """FLOPs of one UNet call with guidance, for one picture and for a batch."""
    unet = make_unet(size, META, torch.float16)
    write_lora(unet, folder / "adapters")
    (folder / "encoders").mkdir()
    session = StyleSession(BenchHost(unet, folder, folder / "cache"))
    rows: dict[str, dict[str, Cell]] = {name: {} for name in SOURCES}
    for batch in batches:
        run = partial(unet, **unet_inputs(unet, size, 2 * batch, pixels))
        plain = flops(run)
        for name, fields in SOURCES.items():
            if name == LEADING and batch == 1:
                rows[name][_column(batch)] = "needs a batch"
                continue
            with styled(session, StyleUnit(**{"image": (picture(0),), **fields}), 2 * batch):
                found = {"plain UNet": plain, name: flops(run)}
            rows[name][_column(batch)] = more(found, name)
    note = f"FLOPs of one UNet call with guidance above the plain one's, {pixels}×{pixels}, size {size.name}."
    return Table("sources without an adapter", {_column(batch): "+.2f" for batch in batches}, rows, note)


def _column(batch: int) -> str:
    return "one picture, %" if batch == 1 else f"{batch} pictures, %"


@contextmanager
def styled(session: StyleSession, unit: StyleUnit, rows: int) -> Iterator[None]:
    """While it lasts, the unit acts in every call of the UNet."""
    session.attach(session.plan([unit]))
    session.call.cond_rows = marks(rows)
    try:
        yield
    finally:
        session.detach()
