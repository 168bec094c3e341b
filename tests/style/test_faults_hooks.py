"""An exception anywhere in sampling, at every step: the error comes out, and no later job hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.standalone import Job, StandaloneHost
from lib_instantstyle.style.attention import StyledLayer
from lib_instantstyle.units.blocks import attention_layers

from ..faults import Shop, open_shop
from ..jobs import STYLE, attach, hooked_layers, run, unit
from ..tiny.pipelines import SIDE, tiny_pipeline

STEPS = 3


class PlugError(RuntimeError):
    """What no handler of ours may expect."""


@pytest.fixture
def shop(world: Path, tmp_path: Path) -> Shop:
    return open_shop(world, tmp_path)


def sample(shop: Shop) -> Tensor:
    """A job of some steps; the end is never reached when one fails, as in the WebUI: nobody detaches."""
    attach(shop.session, unit())
    for step in range(STEPS):
        shop.session.call.progress = step / STEPS
        found = run(shop.host.unet())
    return found


@contextmanager
def failing_at(call: int, arm: Callable[[Callable[..., None]], Any]) -> Iterator[None]:
    """While it lasts, what `arm` puts the plug into fails at its call of that number, counted from 1."""
    calls = 0

    def plug(*_: Any, **__: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise PlugError("the plug was pulled")

    armed = arm(plug)
    try:
        yield
    finally:
        armed.remove()
    assert calls == call


def styled_modules(shop: Shop) -> list[nn.Module]:
    return [module for layer, module in attention_layers(shop.host.unet()).items() if layer.block == STYLE]


# Where a neighbour's hook, or the model itself, may fail: before our hooks in a layer, between them, after them.
PLACES: dict[str, Callable[[Shop], tuple[nn.Module, str]]] = {
    "to_q before ours": lambda shop: (styled_modules(shop)[0].to_q, "register_forward_pre_hook"),
    "to_q after ours": lambda shop: (styled_modules(shop)[0].to_q, "register_forward_hook"),
    "between q and out": lambda shop: (styled_modules(shop)[0].to_v, "register_forward_hook"),
    "to_out": lambda shop: (styled_modules(shop)[1].to_out[0], "register_forward_hook"),
    "the next layer": lambda shop: (styled_modules(shop)[1].to_q, "register_forward_pre_hook"),
    "the whole model": lambda shop: (shop.host.unet(), "register_forward_hook"),
}


@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("place", PLACES)
def test_an_exception_in_the_model_leaves_nothing_to_the_next_job(shop: Shop, place: str, step: int) -> None:
    module, register = PLACES[place](shop)
    with (
        failing_at(step, lambda plug: getattr(module, register)(lambda *args: plug(*args))),
        pytest.raises(PlugError),
    ):
        sample(shop)
    shop.assert_unharmed()
    assert all(layer._query is None for layer in shop.session._layers)


class Patched:
    """A method with a plug before it."""

    def __init__(self, owner: Any, name: str, plug: Callable[..., None]) -> None:
        real = getattr(owner, name)

        def plugged(*args: Any, **kwargs: Any) -> Any:
            plug()
            return real(*args, **kwargs)

        self._patch = mock.patch.object(owner, name, plugged)
        self._patch.start()

    def remove(self) -> None:
        self._patch.stop()


@pytest.mark.parametrize("call", range(1, 2 * STEPS + 1))
def test_an_exception_in_our_own_hook_leaves_nothing_to_the_next_job(shop: Shop, call: int) -> None:
    """Two layers in each step."""
    with failing_at(call, lambda plug: Patched(StyledLayer, "acting", plug)), pytest.raises(PlugError):
        sample(shop)
    assert all(layer._query is None for layer in shop.session._layers)
    shop.assert_unharmed()


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("method", ["attach", "detach"])
def test_an_exception_while_hooks_come_or_go_leaves_none_to_the_next_job(shop: Shop, method: str, call: int) -> None:
    def job() -> None:
        sample(shop)
        shop.session.detach()

    with failing_at(call, lambda plug: Patched(StyledLayer, method, plug)), pytest.raises(PlugError):
        job()
    shop.assert_unharmed()


def test_a_layer_that_takes_one_hook_and_not_the_other_keeps_neither(shop: Shop) -> None:
    """As when another extension has replaced a part of it."""
    first = styled_modules(shop)[0]
    kept, first.to_out = first.to_out, nn.Identity()
    with pytest.raises(TypeError):
        attach(shop.session, unit())
    shop.session.detach()
    first.to_out = kept
    shop.assert_unharmed()


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"))


def drawn(host: StandaloneHost, *units: Any) -> Tensor:
    job = Job("a cat", units=units, steps=2, width=SIDE, height=SIDE)
    return torch.tensor(list(host.generate(job)[0].getdata()))


PARTS: dict[str, tuple[Callable[[Any], Any], str, tuple[int, ...]]] = {
    "text encoder": (lambda pipe: pipe.text_encoder_2, "forward", (1,)),
    "UNet": (lambda pipe: pipe.unet, "forward", (1, 2)),
    "scheduler": (lambda pipe: pipe.scheduler, "step", (1, 2)),
    "VAE": (lambda pipe: pipe.vae, "decode", (1,)),
}


def test_an_exception_in_any_part_of_a_pipeline_leaves_nothing_to_the_next_job(
    pipe: Any, world: Path, tmp_path: Path
) -> None:
    host = StandaloneHost(pipe, [world / "adapters"], [world / "encoders"], cache=tmp_path / "cache")
    plain, styled = drawn(host), drawn(host, unit())
    assert not torch.equal(plain, styled)
    for part, method, calls in PARTS.values():
        for call in calls:
            owner = part(pipe)
            with (
                failing_at(call, lambda plug, owner=owner, method=method: Patched(owner, method, plug)),
                pytest.raises(PlugError),
            ):
                drawn(host, unit())
            assert (hooked_layers(pipe.unet), host.session.attached_to, host.session.call.cond_rows) == ([], None, None)
    assert torch.equal(drawn(host), plain)
    assert torch.equal(drawn(host, unit()), styled)
