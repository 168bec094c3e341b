"""Check what is installed, what is missing and where to get it, and whether the files given fit together."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...files.adapters import AdapterInfo
from ...files.downloads import DOWNLOADS
from ...files.image_encoders import Feature
from ...units.errors import InstantStyleError
from ..model_shapes import check_model
from ..models import Checkpoint, description_of
from ..named_files import NamedFiles
from .output import Report

NEEDED = {
    "torch": "2.1",
    "diffusers": "0.30",
    "transformers": "4.30",
    "safetensors": "0.4",
    "Pillow": "9.5",
    "tqdm": "4",
}
ENOUGH = "12 GB"  # 6.5 GiB of weights in half precision, and some 3 GiB more while a picture is decoded in float32


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    fine: bool
    found: str
    advice: str = ""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("doctor", help="check what is missing and where to get it", description=__doc__)
    parser.add_argument("--model", help="checkpoint file or diffusers folder to check")
    parser.add_argument("--adapter", action="append", default=[], help="adapter file or folder to check")
    parser.add_argument("--encoder", action="append", default=[], help="image encoder file or folder to check")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> Report:
    """Every check; the report is fine when all of them are."""
    checks = [*_packages(), _devices(), *_files(options)]
    lines = [f"{'ok ' if check.fine else 'NO '} {check.name}: {check.found}" for check in checks]
    advice = [f"→ {check.advice}" for check in checks if check.advice]
    data = {"fine": all(check.fine for check in checks), "checks": [asdict(check) for check in checks]}
    return Report("\n".join(lines + advice), data, data["fine"] is True)


def _packages() -> Iterator[Check]:
    yield Check("python", True, platform.python_version())
    for name, least in NEEDED.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            advice = "pip install -r requirements-standalone.txt"
            yield Check(name, False, f"not installed; {least} or later is needed", advice)
            continue
        fine = _numbers(found) >= _numbers(least)
        yield Check(name, fine, found if fine else f"{found}; {least} or later is needed")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())


def _devices() -> Check:
    found = [f"cuda:{at} {torch.cuda.get_device_name(at)} ({_memory(at)})" for at in range(torch.cuda.device_count())]
    found += ["mps"] if torch.backends.mps.is_available() else []
    if found:
        return Check("devices", True, ", ".join([*found, "cpu"]))
    advice = f"On a CPU, SDXL takes minutes for a picture; a GPU with {ENOUGH} takes seconds."
    return Check("devices", True, "cpu", advice)


def _memory(at: int) -> str:
    return f"{torch.cuda.get_device_properties(at).total_memory / 2**30:.0f} GB"


def _files(options: argparse.Namespace) -> Iterator[Check]:
    """The files given, each by itself and, where the adapter can be read, with it."""
    adapter: AdapterInfo | None = None
    try:
        adapter = NamedFiles(options.adapter, []).adapter("auto") if options.adapter else None
        yield _found(adapter) if adapter else _nothing("adapter", "ip-adapter_sdxl.safetensors")
    except InstantStyleError as error:
        yield Check("adapter", False, error.message)
    if options.encoder:
        yield _checked("encoder", lambda: _encoders(NamedFiles([], options.encoder), adapter))
    else:
        yield _nothing("encoder", "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors")
    yield _checked("model", lambda: check_model(options.model, adapter)) if options.model else _no_model()
    if options.model and Path(options.model).expanduser().is_file():
        yield _description(Path(options.model).expanduser())


def _found(adapter: AdapterInfo) -> Check:
    return Check("adapter", True, f"{adapter.path.name}: {adapter.variant}, reads {adapter.feature.encoder_name}")


def _nothing(kind: str, file: str) -> Check:
    download = DOWNLOADS[file]
    return Check(kind, True, "none given", f"Get {download.url} ({download.gigabytes}) and give it with --{kind}.")


def _no_model() -> Check:
    return Check("model", True, "none given", "Any SDXL checkpoint file, diffusers folder or Hub id will do: --model")


def _description(checkpoint: Path) -> Check:
    """None is no fault: it may be named when pictures are made."""
    try:
        return Check("model config", True, f"described by {description_of(Checkpoint(checkpoint))}")
    except InstantStyleError as error:
        return Check("model config", True, "none found", error.message)
    except ImportError:  # without transformers, of which the checks of packages tell
        return Check("model config", True, "not looked for: huggingface_hub is missing")


def _encoders(files: NamedFiles, adapter: AdapterInfo | None) -> str:
    """The one that the adapter reads, or all where it is not known."""
    found = [files.encoder(adapter.feature)] if adapter else files.all_encoders()
    return ", ".join(f"{one.path.name}: {Feature('hidden', one.config['hidden_size']).encoder_name}" for one in found)


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except InstantStyleError as error:
        return Check(name, False, error.message)
