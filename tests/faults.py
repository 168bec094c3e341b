"""What must hold after any fault: no hook is left, and the next jobs, plain and styled, are as they would have been."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.errors import InstantStyleError
from lib_instantstyle.units.unit import StyleUnit

from .jobs import attach, hooked_layers, run, unit
from .tiny import TinyHost, sdxl_unet

PLACES = (0.0, 0.01, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.9999)  # shares of a file after which it ends


@dataclass
class Shop:
    """A session on models of its own, which may be broken, and what it draws as long as nothing is."""

    session: StyleSession
    host: TinyHost
    plain: Tensor
    styled: Tensor

    @property
    def adapter(self) -> Path:
        return self.host.models / "adapters/base.safetensors"

    @property
    def encoder(self) -> Path:
        return self.host.models / "encoders/tiny/model.safetensors"

    def draw(self, *units: StyleUnit) -> Tensor:
        """One styled job, from plan to detach."""
        try:
            attach(self.session, *(units or (unit(),)))
            return run(self.host.unet())
        finally:
            self.session.detach()

    def refuses(self, *units: StyleUnit) -> InstantStyleError:
        """The refusal of a job; no hook may be left by it, and no picture come of it."""
        with pytest.raises(InstantStyleError) as caught:
            self.draw(*units)
        assert (hooked_layers(self.host.unet()), self.session.attached_to) == ([], None)
        return caught.value

    def assert_plain(self) -> None:
        assert (hooked_layers(self.host.unet()), self.session.attached_to) == ([], None)
        assert torch.equal(run(self.host.unet()), self.plain)

    def assert_unharmed(self) -> None:
        """The next jobs, a plain one and a styled one, are what they were before the fault, to the last bit."""
        self.session.detach()
        self.assert_plain()
        assert torch.equal(self.draw(), self.styled)
        assert hooked_layers(self.host.unet()) == []


@cache
def _undisturbed(world: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """One UNet for all shops, and what it gives plain and styled; a trace left in it makes later tests fail."""
    host = TinyHost(sdxl_unet(), world, world.with_name(f"{world.name}-undisturbed"))
    session, plain = StyleSession(host), run(host.unet())
    attach(session, unit())
    styled = run(host.unet())
    session.detach()
    return host.unet(), plain, styled


def open_shop(world: Path, folder: Path) -> Shop:
    """A shop on a copy of the models in `world`."""
    shutil.copytree(world, folder / "world")
    unet, plain, styled = _undisturbed(world)
    host = TinyHost(unet, folder / "world", folder / "cache")
    return Shop(StyleSession(host), host, plain, styled)


def overwrite(path: Path, content: bytes) -> None:
    """Other contents under the same name, size permitting with the same time: as `cp -p` or a careful attacker."""
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@contextmanager
def away(path: Path) -> Iterator[None]:
    """While it lasts, the file or folder is not there."""
    elsewhere = path.with_name(f"{path.name}.away")
    path.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(path)
