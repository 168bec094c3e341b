"""Everything random, as a function of the seed and of what it is for.

No state has to be kept: sample number n of a training has the same noise whichever process computes it, before and
after a resume. So two processes equal one with twice the batch, and a resumed run goes on as if it had not stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def generator(*what: object) -> torch.Generator:
    """A CPU generator for this one purpose."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def uniform(made: torch.Generator) -> float:
    """0 up to, but never, 1."""
    return float(torch.rand((), generator=made, dtype=torch.float64))


@dataclass(frozen=True)
class Draw:
    """The random choices for one sample."""

    seed: int
    number: int  # of the sample, counted through the whole training

    def uniform(self, what: str) -> float:
        return uniform(generator(self.seed, what, self.number))

    def normal(self, what: str, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=generator(self.seed, what, self.number))

    def below(self, what: str, limit: int) -> int:
        """One of 0 … limit − 1."""
        return int(torch.randint(limit, (), generator=generator(self.seed, what, self.number)))


def shuffled(count: int, *what: object) -> list[int]:
    """A permutation of 0 … count − 1 for this one purpose."""
    order: list[int] = torch.randperm(count, generator=generator(*what)).tolist()
    return order


@dataclass(frozen=True)
class Split:
    """How the samples of a step are shared: passes one after another, in each the processes side by side."""

    batch: int  # samples of one process in one pass
    process: int
    processes: int
    passes: int

    @property
    def samples(self) -> int:
        """Samples of one step, of all processes and passes together."""
        return self.batch * self.processes * self.passes

    def numbers(self, step: int, at: int) -> range:
        """The numbers of this process's samples in pass `at` of a step counted from 0."""
        first = step * self.samples + (at * self.processes + self.process) * self.batch
        return range(first, first + self.batch)
