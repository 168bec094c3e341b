"""Where a model runs, and in which precision."""

from __future__ import annotations

import torch

from ..units.errors import InstantStyleError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name, or the best one here. Raises InstantStyleError when it is not here."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InstantStyleError(f"device must be like cuda, cuda:1, mps or cpu, got {name!r}.", "device") from None
    here = {"cuda": torch.cuda.is_available(), "mps": _has_mps()}
    if not here.get(device.type, True):
        raise InstantStyleError(f"This torch {torch.__version__} has no device {name!r}. Use cpu.", "device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise InstantStyleError(f"There is no device {name!r}: this machine has {count}, counted from 0.", "device")
    return device


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def pick_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The precision of that name, or what suits the device: half on a GPU, float32 on the CPU."""
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise InstantStyleError(f"dtype must be one of {', '.join(DTYPES)}; got {name!r}.", "dtype")
    return DTYPES[name]
