"""Out of memory at each stage of a job: an error, or the same result on the CPU; and nothing of it stays."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from lib_instantstyle.files import adapters, image_encoders, text_towers
from lib_instantstyle.files.projections import ImageProjModel
from lib_instantstyle.style import sums
from lib_instantstyle.style.key_values import KeyValueStack
from lib_instantstyle.style.session import StyleSession

from ..faults import Shop, open_shop
from ..jobs import unit
from ..tiny import TinyHost, clip_model

CONTENT = unit(content_prompt="a rabbit", content_scale=1.0)


def device_is_full() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def machine_is_full() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:83] DefaultCPUAllocator: can't allocate memory")


# Where memory may run out: the name of the stage → what is called there.
STAGES: dict[str, tuple[Any, str]] = {
    "encoder load": (image_encoders, "_load"),
    "encoder forward": (image_encoders.ImageEncoder, "_run"),
    "text tower load": (text_towers, "_load"),
    "text tower forward": (text_towers.TextTower, "_encode"),
    "projection": (ImageProjModel, "forward"),
    "keys": (adapters.Adapter, "to_k_ip"),
    "values": (adapters.Adapter, "to_v_ip"),
    "stacking": (sums, "stack"),
    "attention": (KeyValueStack, "add_to"),
}
ON_THE_DEVICE = ("encoder load", "encoder forward", "text tower load", "text tower forward")


@pytest.fixture
def shop(world: Path, tmp_path: Path) -> Shop:
    """A shop whose content prompts are read by a file."""
    made = open_shop(world, tmp_path)
    clip_model().save_pretrained(made.host.models / "encoders/zz-full", safe_serialization=True)
    made.host = TinyHost(made.host.unet(), made.host.models, made.host.cache, text_width=None)
    made.session = StyleSession(made.host)
    return made


@contextmanager
def failing(stage: str, error: Callable[[], Exception], times: int) -> Iterator[list[int]]:
    """While it lasts, the stage fails so many times, and then works again."""
    owner, name = STAGES[stage]
    real, calls = getattr(owner, name), [0]

    def fail_first(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(one, Tensor) and one.is_meta for one in args):
            return real(*args, **kwargs)  # of shapes alone, which take no memory
        calls[0] += 1
        if calls[0] <= times:
            raise error()
        return real(*args, **kwargs)

    with mock.patch.object(owner, name, fail_first):
        yield calls


@pytest.mark.parametrize("error", [device_is_full, machine_is_full])
@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_stops_the_job_and_harms_no_other(
    shop: Shop, stage: str, error: Callable[[], Exception]
) -> None:
    with failing(stage, error, times=1000) as calls, pytest.raises(type(error())):
        shop.draw(CONTENT)
    assert calls[0] >= 1
    shop.assert_unharmed()
    assert not torch.equal(shop.draw(CONTENT), shop.styled)
    shop.assert_unharmed()


@pytest.mark.parametrize("stage", ON_THE_DEVICE)
def test_a_model_that_the_device_cannot_hold_runs_on_the_cpu(shop: Shop, stage: str) -> None:
    with failing(stage, device_is_full, times=1) as calls:
        found = shop.draw(CONTENT)
    assert calls[0] >= 2
    shop.session = StyleSession(
        TinyHost(shop.host.unet(), shop.host.models, shop.host.cache / "fresh", text_width=None)
    )
    assert torch.equal(found, shop.draw(CONTENT))


def test_a_failing_encoder_is_let_go(shop: Shop) -> None:
    """A traceback holds what was loaded; where it is remembered, so are gigabytes."""
    loaded: list[weakref.ref[Any]] = []
    real = image_encoders.ImageEncoder._run

    def fail(self: Any, pixels: Tensor, feature: Any) -> Tensor:
        loaded.append(weakref.ref(self._model))
        real(self, pixels, feature)
        raise machine_is_full()

    with mock.patch.object(image_encoders.ImageEncoder, "_run", fail), pytest.raises(RuntimeError):
        shop.draw()
    gc.collect()
    assert [one() for one in loaded] == [None]
    shop.assert_unharmed()
