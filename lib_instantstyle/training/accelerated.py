"""Hugging Face Accelerate: the one place that knows how many processes there are and on what they run."""

from __future__ import annotations

import importlib.util
import os
from datetime import timedelta
from typing import Any

import torch

from ..core.errors import InstantStyleError
from .materials import Place
from .settings import Settings

PATIENCE = timedelta(hours=6)  # that processes wait for each other, while one of them encodes or draws samples
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_accelerator(settings: Settings) -> Any:
    """An Accelerator as the settings, the launcher and `accelerate config` want it."""
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    except ImportError as error:
        raise InstantStyleError(
            f"Training needs accelerate, which cannot be imported ({error}). "
            "Install it: pip install -r requirements-training.txt"
        ) from None
    several = len(settings.blocks) > 1  # then the layers of the groups not drawn have no gradient
    return Accelerator(
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulate,
        cpu=settings.cpu,
        log_with="tensorboard" if importlib.util.find_spec("tensorboard") else None,
        project_dir=str(settings.out),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=several),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )


def place_of(accelerator: Any) -> Place:
    """Where this process computes; the frozen networks have the precision of the training."""
    dtype = DTYPES.get(accelerator.mixed_precision, torch.float32)
    return Place(accelerator.device, dtype, accelerator.process_index, accelerator.num_processes)


def processes_here(accelerator: Any) -> tuple[int, int]:
    """This process's number on its machine, and how many there are on it."""
    return accelerator.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", 1))
