"""Hugging Face Accelerate: the one place that knows how many processes there are and on what they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch

from ...units.errors import InstantStyleError
from ..devices import pick_device
from .materials import Place
from .settings import Settings

# What torchrun, srun and mpirun tell a process of its number and of how many there are, as Accelerate looks for it.
_LAUNCHERS = (("RANK", "WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))
PATIENCE = timedelta(hours=6)  # that processes wait for each other, while one of them encodes or draws samples
Made = TypeVar("Made")
DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def make_accelerator(settings: Settings) -> Any:
    """An Accelerator as the settings, the launcher and `accelerate config` want it.

    Raises InstantStyleError when it is not installed or cannot be had in this precision.
    """
    if settings.precision == "fp16" and (settings.cpu or pick_device().type == "cpu"):
        raise InstantStyleError(
            "Precision fp16 needs a GPU, but this runs on a CPU. Use bf16, or no (full precision).", "precision"
        )
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        from accelerate.utils import is_tensorboard_available
    except ImportError as error:
        raise InstantStyleError(
            f"Training needs accelerate, which cannot be imported ({error}). "
            "Install it: pip install -r requirements-training.txt"
        ) from None
    several = len(settings.blocks) > 1  # then the layers of the groups not drawn have no gradient
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=several), InitProcessGroupKwargs(timeout=PATIENCE)]
    try:
        return Accelerator(
            mixed_precision=settings.precision,
            gradient_accumulation_steps=settings.accumulate,
            cpu=settings.cpu,
            log_with="tensorboard" if is_tensorboard_available() else None,
            project_dir=str(settings.out),
            kwargs_handlers=handlers,
        )
    except ValueError as error:  # one Python process has one precision, for one
        raise InstantStyleError(f"Accelerate cannot start with these settings: {error}") from error


def place_of(accelerator: Any) -> Place:
    """Where this process computes; the frozen networks have the precision of the training."""
    dtype = DTYPES.get(accelerator.mixed_precision, torch.float32)
    return Place(accelerator.device, dtype, accelerator.process_index, accelerator.num_processes)


def is_first() -> bool:
    """Whether this process answers for a training: of several that a launcher has started together, the first."""
    for rank, size in _LAUNCHERS:
        if rank in os.environ and os.environ.get(size, "1") != "1":
            return os.environ[rank] == "0"
    return True


def processes_here(accelerator: Any) -> tuple[int, int]:
    """This process's number on its machine, and how many there are on it."""
    return accelerator.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", 1))


@contextmanager
def alike() -> Iterator[None]:
    """Where every process runs into the same errors: the first tells them for all."""
    try:
        yield
    except InstantStyleError as error:
        error.shared = True
        raise


def together(work: Callable[[], Made]) -> Made:
    """What `work` makes, once it is done in every process. Where it fails in one, all raise and nobody is waited for.

    Its own error, or InstantStyleError with that of the first process that failed.
    """
    error: Exception | None = None
    try:
        made = work()
    except Exception as raised:
        error = raised
    with alike():
        _check_others(None if error is None else str(error), error)
    return made


def of_all(own: list[Made]) -> list[Made]:
    """What every process has, one after the other."""
    from accelerate.utils import gather_object

    found: list[Made] = gather_object(own)
    return found


def _check_others(own: str | None, error: Exception | None) -> None:
    told = of_all([own])
    if error is not None:
        raise error
    failed = next((process for process, message in enumerate(told) if message is not None), None)
    if failed is not None:
        raise InstantStyleError(f"Process {failed} (of 0 to {len(told) - 1}) cannot continue: {told[failed]}")
