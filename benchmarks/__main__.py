"""Measure and print tables in Markdown: `python -m benchmarks --size sdxl --pixels 256 --rounds 5`."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import torch

from lib_instantstyle.core.units import StyleUnit

from .memory import cost_of
from .models import SIZES, make_unet, unet_inputs, write_adapter, write_encoder
from .sampling import Bench, picture, subjects
from .timing import compare


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(report(options, Path(folder)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default="small", help="widths of the UNet (default: small)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pixels", type=int, default=512, help="side of the picture (default: 512)")
    parser.add_argument("--batch", type=int, default=1, help="pictures at once; guidance doubles the rows")
    parser.add_argument("--steps", type=int, default=2, help="UNet calls in one measurement")
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def report(options: argparse.Namespace, folder: Path) -> str:
    """All tables, with the machine and the settings they hold for."""
    size, device = SIZES[options.size], torch.device(options.device)
    unet = make_unet(size, device, torch.float16 if device.type == "cuda" else torch.float32)
    adapter = write_adapter(folder / "adapters" / "adapter.safetensors", unet)
    write_encoder(folder / "encoders" / "encoder")
    inputs = unet_inputs(unet, size, 2 * options.batch, options.pixels)
    bench = Bench(unet, inputs, options.steps, folder)
    return "\n".join([_machine(options), _memory(bench, folder), _sampling(bench, adapter, options.rounds)]) + "\n"


def _machine(options: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, {device}; UNet of size {options.size}, "
        f"{options.pixels}×{options.pixels}, batch {options.batch}, {options.steps} UNet calls a measurement, "
        f"{options.rounds} rounds; ratios to the plain UNet: median (quartiles).\n"
    )


def _sampling(bench: Bench, adapter: dict[str, dict[str, torch.Tensor]], rounds: int) -> str:
    ratios = compare(subjects(bench, adapter), bench.run, rounds)
    return _table("sampling", "time against the plain UNet", {name: str(ratio) for name, ratio in ratios.items()})


def _memory(bench: Bench, folder: Path) -> str:
    size = (folder / "adapters" / "adapter.safetensors").stat().st_size
    rows = {}
    for preset in ("style", "style_and_layout", "original"):
        cost = cost_of(bench.session.host, StyleUnit(image=(picture(0),), preset=preset))
        rows[preset] = f"{cost.read / 2**20:.2f} of {size / 2**20:.2f} | {cost.kept / 2**20:.3f} | {cost.seconds:.2f}"
    return _table("preparing one unit", "MiB read of the file | MiB kept | seconds", rows)


def _table(title: str, columns: str, rows: dict[str, str]) -> str:
    rule = "|".join(["---"] * (columns.count("|") + 2))
    lines = [f"| {name} | {cells} |" for name, cells in rows.items()]
    return "\n".join([f"| {title} | {columns} |", f"|{rule}|", *lines, ""])


if __name__ == "__main__":
    main()
