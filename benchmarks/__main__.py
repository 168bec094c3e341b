"""Measure and print tables in Markdown: `python -m benchmarks --size sdxl --sections flops,memory,growth`.

The same command runs at reduced widths on a small machine and at SDXL's own on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging

from . import flops, layers, memory, methods, sampling, starting
from .models import ENCODERS, SIZES, adapter_tensors, make_unet, unet_inputs, write_adapter, write_encoder
from .report import Table

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    logging.set_verbosity_error()  # diffusers remarks on every UNet that is moved
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options, Path(folder))
        sys.stdout.write(f"{run.machine}\n\n")
        data: dict[str, Any] = {"machine": run.machine, "tables": []}
        for table in run.tables():
            sys.stdout.write(f"{table.markdown}\n")
            sys.stdout.flush()
            data["tables"].append(table.as_json())
            if options.json:  # after each table: a long run that is stopped has not been for nothing
                options.json.write_text(json.dumps(data, ensure_ascii=False, indent=1), "utf-8")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sections", type=_sections, default=list(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="widths of the UNet (default: small)")
    parser.add_argument("--device", default="cuda" if has_gpu else "cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: float16 on a GPU, float32 on a CPU")
    parser.add_argument("--pixels", type=int, default=1024, help="side of the picture, for arithmetic and sampling")
    parser.add_argument("--batch", type=int, default=1, help="pictures at once; guidance doubles the rows")
    parser.add_argument("--steps", type=int, default=2, help="UNet calls in one measurement of sampling")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's own choice)")
    parser.add_argument("--encoder", choices=list(ENCODERS), default="small", help="image encoder of memory, starting")
    parser.add_argument("--controlnet", type=Path, default=os.environ.get("CONTROLNET_DIR"), help="its checkout")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers for python -m benchmarks.plot")
    return parser.parse_args(arguments)


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(SECTIONS)):
        raise argparse.ArgumentTypeError(f"there is no section {', '.join(unknown)}; take some of {','.join(SECTIONS)}")
    return names


@dataclass
class Run:
    """One command: what it was asked, and where its files lie."""

    options: argparse.Namespace
    folder: Path

    def __post_init__(self) -> None:
        given = self.options
        self.size, self.device = SIZES[given.size], torch.device(given.device)
        self.dtype = DTYPES[given.dtype or ("float32" if self.device.type == "cpu" else "float16")]
        self.controlnet = Path(given.controlnet) if given.controlnet else None

    @property
    def machine(self) -> str:
        """What the figures hold for."""
        threads = f"{torch.get_num_threads()} threads of {_processor()}"
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else threads
        precision = str(self.dtype).removeprefix("torch.")
        versions = f"torch {torch.__version__}, Python {platform.python_version()}"
        return f"{versions}, {where}; size {self.size.name}, {precision}"

    def tables(self) -> Iterator[Table]:
        for name in self.options.sections:
            yield from SECTIONS[name](self)

    def arithmetic(self) -> list[Table]:
        return [flops.count(self.size, self.options.pixels, self.options.batch)]

    def sources(self) -> list[Table]:
        return [methods.count(self.size, self.folder / "sources", self.options.pixels)]

    def series(self) -> list[Table]:
        return layers.count(self.size)

    def allocations(self) -> list[Table]:
        return [layers.allocate(self._layers())]

    def growth(self) -> list[Table]:
        return layers.grow(self._layers())

    def _layers(self) -> layers.Machine:
        return layers.Machine(self.size, self.device, self.dtype, self.options.rounds, self.controlnet)

    def memory(self) -> list[Table]:
        return [memory.measure(self._files(), self.controlnet)]

    def starting(self) -> list[Table]:
        return [starting.measure(self._files(), self.options.encoder, self.options.rounds, self.controlnet)]

    def _files(self) -> memory.Files:
        """For a UNet of shapes alone: preparing asks for no more."""
        unet = make_unet(self.size, flops.META, self.dtype)
        files = memory.Files(unet, self.folder, self.device, self.dtype)
        if not files.adapter.is_file():
            write_adapter(files.adapter, adapter_tensors(unet))
            write_encoder(self.folder / "encoders" / "encoder", self.options.encoder)
        return files

    def sampling(self) -> list[Table]:
        return [self._contest.time(self.options.rounds)]

    def kernels(self) -> list[Table]:
        rounds = max(3, self.options.rounds // 3)  # kernels hardly vary, and the profiler is slow
        return [self._contest.compute(rounds)]

    def vram(self) -> list[Table]:
        return [self._contest.occupy()]

    @cached_property
    def _contest(self) -> sampling.Contest:
        given, folder = self.options, self.folder / "sampling"
        unet = make_unet(self.size, self.device, self.dtype)
        adapter = adapter_tensors(unet)
        write_adapter(folder / "adapters" / "adapter.safetensors", adapter)
        write_encoder(folder / "encoders" / "encoder")
        bench = sampling.Bench(unet, unet_inputs(unet, self.size, 2 * given.batch, given.pixels), given.steps, folder)
        return sampling.contest(bench, adapter, self.controlnet)


SECTIONS: dict[str, Callable[[Run], list[Table]]] = {
    "flops": Run.arithmetic,
    "sources": Run.sources,
    "layer-flops": Run.series,
    "allocations": Run.allocations,
    "memory": Run.memory,
    "starting": Run.starting,
    "growth": Run.growth,
    "sampling": Run.sampling,
    "kernels": Run.kernels,
    "vram": Run.vram,
}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "a CPU"
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "a CPU")


if __name__ == "__main__":
    sys.exit(main())
