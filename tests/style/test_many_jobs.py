"""A thousand jobs in a row, good and bad ones: what is held after them is what was held after the first few."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_instantstyle.style.session import KEPT_BYTES, KEPT_UNITS, StyleSession
from lib_instantstyle.units.errors import InstantStyleError
from lib_instantstyle.units.unit import StyleUnit

from ..jobs import attach, hooked_layers, unit
from ..tiny import CONTEXT, LdmUnet, TinyHost, base_adapter, picture, save_adapter
from ..tiny.clip import POOLED

JOBS, WARM = 1000, 200
PICTURES = KEPT_UNITS + 4  # more than stay in memory
PAINTED = [picture(seed, (8, 8)) for seed in range(PICTURES)]
MOST_OBJECTS, MOST_BYTES = 200, 64 << 10  # between the two looks: less than one for each of 800 jobs


@pytest.fixture
def host(world: Path, tmp_path: Path) -> TinyHost:
    """A host whose UNet is nothing but attention, so that a job takes milliseconds."""
    unet = LdmUnet(depths=(1, 1))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/encoders").symlink_to(world / "encoders", target_is_directory=True)
    for number, name in enumerate(("base", "other")):
        save_adapter(base_adapter(unet, POOLED, seed=number), tmp_path / f"models/adapters/{name}.safetensors")
    return TinyHost(unet, tmp_path / "models", tmp_path / "cache")


def asked(number: int) -> StyleUnit:
    """Another unit for each number; some of them cannot be had."""
    fields = {"image": (PAINTED[number % PICTURES],), "weight": 0.5 + number % 5 / 4, "end": 1 - number % 3 / 10}
    if number % 4 == 1:
        fields |= {"content_prompt": f"a rabbit {number % 7}", "content_method": "project"}
    if number % 10 == 3:
        fields["adapter"] = "nothing" if number % 20 == 3 else "other"
    if number % 10 == 7:
        fields["image"] = ("no picture",)
    return unit(**fields)


def fail(*_: object) -> None:
    raise RuntimeError("the plug was pulled")


@torch.no_grad()
def do(session: StyleSession, number: int, x: Tensor, context: Tensor) -> str:
    """One job, and how it ended. A failing one leaves its hooks to the next, as in the WebUI."""
    plug = None
    try:
        attach(session, asked(number))
        if number % 10 == 9:
            plug = session.host.unet().output_blocks[2][1].register_forward_pre_hook(fail)
        session.host.unet()(x, context)
        session.detach()
    except InstantStyleError:
        return "refused"
    except RuntimeError:
        return "failed"
    finally:
        if plug is not None:
            plug.remove()
    return "done"


def held() -> tuple[int, int, int]:
    """Objects, bytes of tensors, and bytes of the whole process."""
    gc.collect()
    objects = gc.get_objects()
    tensors = sum(one.nbytes for one in objects if type(one) is Tensor)
    return len(objects), tensors, int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_is_flat_over_a_thousand_jobs(host: TinyHost) -> None:
    session, x, context = StyleSession(host), torch.randn(2, 5, 16), torch.randn(2, 7, CONTEXT)
    with torch.no_grad():
        plain = host.unet()(x, context)
    ends = Counter(do(session, number, x, context) for number in range(WARM))
    before = held()
    ends += Counter(do(session, number, x, context) for number in range(WARM, JOBS))
    objects, tensors, size = (now - then for now, then in zip(held(), before))
    assert ends == {"done": 750, "refused": 150, "failed": 100}
    assert objects < MOST_OBJECTS
    assert tensors < MOST_BYTES
    assert size < 32 << 20
    assert len(session._kept) <= KEPT_UNITS
    session.detach()
    assert hooked_layers(host.unet()) == []
    with torch.no_grad():
        assert torch.equal(host.unet()(x, context), plain)


def test_what_is_kept_between_jobs_is_bounded_in_bytes_too(host: TinyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of a plus adapter with thirty pictures takes as much as a thousand style units."""
    session = StyleSession(host)
    attach(session, unit(image=(PAINTED[0],)))
    one = session._kept_bytes()
    assert 0 < one < KEPT_BYTES
    monkeypatch.setattr("lib_instantstyle.style.session.KEPT_BYTES", 3 * one)
    for seed in range(PICTURES):
        attach(session, unit(image=(PAINTED[seed],)))
        assert session._kept_bytes() <= 3 * one
    monkeypatch.setattr("lib_instantstyle.style.session.KEPT_BYTES", 0)
    attach(session, unit(image=(PAINTED[0],)))
    assert len(session._kept) == 1
    assert {layer.units[0].scale for layer in session._layers} == {1.0}
