"""A whole job against diffusers' own IP-Adapter, on a GPU in half precision; not run without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_instantstyle.style.session import StyleSession

from ..tiny import TinyHost, unet_inputs
from .test_diffusers import NAMES, ROUTES, ROWS, Theirs, ours, unit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TOLERANCE = 0.02  # float16, outputs of size one


def on_gpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: on_gpu(one) for name, one in value.items()}
    if isinstance(value, list):
        return [on_gpu(one) for one in value]
    return value.to("cuda", torch.float16 if value.is_floating_point() else None)


def call(unet: Any, **more: Any) -> Tensor:
    inputs = unet_inputs(len(ROWS))
    inputs["added_cond_kwargs"].update(more)
    return unet(**on_gpu(inputs)).sample


@torch.no_grad()
@pytest.mark.parametrize("adapter", ["base", "plus"])
@pytest.mark.parametrize(("fields", "scale"), ROUTES, ids=NAMES)
def test_every_routing_equals_diffusers(
    session: StyleSession, host: TinyHost, adapter: str, fields: dict[str, Any], scale: Any
) -> None:
    theirs = Theirs(host, [adapter], [scale])
    wanted = call(theirs.unet.to("cuda", torch.float16), image_embeds=[theirs.image_embeds(adapter, (0,))])
    unet = host.unet().to("cuda", torch.float16)
    plain = call(unet)
    session.attach(session.plan((unit(adapter, **fields),)))
    session.call.cond_rows = ROWS
    found = call(unet)
    session.detach()
    assert (wanted - plain).abs().max() > 2 * TOLERANCE
    assert (found - wanted).abs().max() <= TOLERANCE
    assert torch.equal(call(unet), plain)


@torch.no_grad()
@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_a_picture_encoded_on_the_gpu_gives_what_it_gives_on_the_cpu(
    session: StyleSession, host: TinyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    """In half precision, as in the WebUI."""
    other = TinyHost(host.unet(), host.models, tmp_path / "another-cache")
    monkeypatch.setattr(other, "encoder_device", lambda: (torch.device("cuda"), torch.float16))
    found, wanted = (ours(one, unit(adapter)) for one in (StyleSession(other), session))
    assert not torch.equal(found, wanted)  # or the GPU was not asked
    assert (found - wanted).abs().max() <= TOLERANCE
