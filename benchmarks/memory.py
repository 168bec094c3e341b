"""What preparing a unit reads and what stays in memory afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from torch import Tensor

from lib_instantstyle.core.tensor_files import SafetensorsFile
from lib_instantstyle.core.units import StyleUnit
from lib_instantstyle.hosts.protocol import Host
from lib_instantstyle.session import StyleSession


@dataclass
class Cost:
    """Of preparing one unit."""

    read: int = 0  # bytes of tensors read from files
    kept: int = 0  # bytes of keys and values that stay in memory
    seconds: float = 0.0


def cost_of(host: Host, unit: StyleUnit) -> Cost:
    """Prepare `unit`, whose picture was encoded before, in a fresh session, counting."""
    first = StyleSession(host)
    first.attach(first.plan((unit,)))
    first.detach()
    session, cost = StyleSession(host), Cost()
    plans = session.plan((unit,))
    with _counting(cost):
        started = time.perf_counter()
        session.attach(plans)
        cost.seconds = time.perf_counter() - started
    session.detach()
    cost.kept = _kept(session)
    return cost


def _kept(session: StyleSession) -> int:
    pairs = (pair for layers in session._kept.values() for pair in layers.values())
    return sum(tensor.numel() * tensor.element_size() for pair in pairs for tensor in pair)


@contextmanager
def _counting(cost: Cost) -> Iterator[None]:
    read = SafetensorsFile.read

    def read_and_count(self: SafetensorsFile, name: str) -> Tensor:
        tensor = read(self, name)
        cost.read += tensor.numel() * tensor.element_size()
        return tensor

    with mock.patch.object(SafetensorsFile, "read", read_and_count):
        yield
