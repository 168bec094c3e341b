"""Pipelines whose parts lie elsewhere while they draw: the same pictures, and encoders where the work is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload

from lib_instantstyle.standalone import StandaloneHost

from ..jobs import unit
from ..tiny import base_adapter, save_adapter
from ..tiny.clip import POOLED
from ..tiny.pipelines import tiny_pipeline
from .test_styled import ORIGINAL, TOLERANCE, drawn


def by_layers(pipe: Any) -> None:
    """As `enable_sequential_cpu_offload` does it, which takes a GPU for granted: weights are there for their layer."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)


def by_models(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


@pytest.mark.parametrize("offload", [by_layers, by_models])
def test_an_offloaded_pipeline_draws_the_same_style(
    models: Path, tmp_path: Path, offload: Callable[[Any], None]
) -> None:
    pipes = [tiny_pipeline(tmp_path / "tokenizer") for _ in range(2)]  # of the same weights
    adapter = tmp_path / "base.safetensors"
    save_adapter(base_adapter(pipes[0].unet, POOLED), adapter)
    offload(pipes[1])
    drawings = []
    for pipe in pipes:
        host = StandaloneHost(pipe, [adapter], [models / "encoder"], cache=tmp_path / str(len(drawings)))
        with host.styled([unit(**ORIGINAL, content_prompt="a rabbit")]):
            drawings.append(drawn(pipe))
        assert host.encoder_device() == (pipe._execution_device, torch.float32)
    assert np.abs(drawings[1] - drawings[0]).max() <= TOLERANCE
    assert pipes[1]._execution_device != pipes[1].device  # which is meta, or cpu and not cpu:0


def test_the_encoder_runs_on_the_gpu_of_a_pipeline_that_waits_on_the_cpu(
    host: StandaloneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(type(host.pipe), "_execution_device", property(lambda _: gpu))
    monkeypatch.setattr(type(host.unet()), "dtype", property(lambda _: torch.float16))
    assert host.encoder_device() == (gpu, torch.float16)
