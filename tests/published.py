"""The layouts of published files, and files of those layouts that hold nothing.

A layout gives keys and shapes; `{0-3}` in a key stands for four keys, `{q,k}` for two. A file is written sparse: its
table of names is whole, its tensors are a hole, so that a 7 GB encoder takes a few kilobytes of disk.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]

FOLDER = Path(__file__).parent / "layouts"
ADAPTERS = sorted(path.stem for path in FOLDER.glob("*.json") if not path.stem.startswith("encoder_"))
ENCODERS = sorted(path.stem for path in FOLDER.glob("encoder_*.json"))
USABLE = [name for name in ADAPTERS if "variant" in json.loads((FOLDER / f"{name}.json").read_text())["expect"]]
REFUSED = [name for name in ADAPTERS if "refused" in json.loads((FOLDER / f"{name}.json").read_text())["expect"]]
BYTES = {"F16": 2, "F32": 4}


def layout(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def shapes_of(name: str) -> Shapes:
    """Every key of a published file with its shape."""
    read = layout(name)
    shapes = {key: tuple(shape) for pattern, shape in read["keys"].items() for key in expand(pattern)}
    return shapes | (layer_shapes(**read["layers"]) if "layers" in read else {})


def expand(pattern: str) -> Iterator[str]:
    """All keys that a pattern with {0-3} or {q,k} in it stands for."""
    found = re.search(r"\{([^}]*)\}", pattern)
    if not found:
        yield pattern
        return
    first, _, last = found[1].partition("-")
    for word in map(str, range(int(first), int(last) + 1)) if last else found[1].split(","):
        yield from expand(f"{pattern[: found.start()]}{word}{pattern[found.end() :]}")


def layer_shapes(prefix: str, runs: list[list[int]], context: int, lora_rank: int = 0) -> Shapes:
    """The attention layers of an adapter; `runs` says how many layers of which width follow each other."""
    widths = [width for count, width in runs for _ in range(count)]
    shapes: Shapes = {}
    for index, width in enumerate(widths):
        shapes |= {f"{prefix}{2 * index + 1}.to_{kind}_ip.weight": (width, context) for kind in "kv"}
        for number, inputs in ((2 * index, width), (2 * index + 1, context)) if lora_rank else ():
            shapes |= _lora(f"{prefix}{number}", width, inputs, lora_rank)
    return shapes


def _lora(name: str, width: int, inputs: int, rank: int) -> Shapes:
    entries = {"q": width, "k": inputs, "v": inputs, "out": width}
    down = {f"{name}.to_{part}_lora.down.weight": (rank, entry) for part, entry in entries.items()}
    return down | {f"{name}.to_{part}_lora.up.weight": (width, rank) for part in entries}


def renamed(shapes: Shapes, old: str, new: str) -> Shapes:
    """The same shapes with another prefix for the keys that begin with `old`."""
    return {new + key[len(old) :] if key.startswith(old) else key: shape for key, shape in shapes.items()}


def write_sparse(path: Path, shapes: Shapes, dtype: str = "F16") -> Path:
    """A safetensors file of these keys and shapes whose contents were never written."""
    table, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        table[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(table).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return path


def install(name: str, folder: Path) -> Path:
    """A published file in `folder`, under its layout's name."""
    return write_sparse(folder / f"{name}.safetensors", shapes_of(name), layout(name).get("dtype", "F16"))


def meta_tensors(shapes: Shapes) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
