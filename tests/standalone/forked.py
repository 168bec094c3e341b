"""Commands in processes of their own, forked from one that has imported torch and diffusers once for all of them.

That spares each command ten seconds of imports. What `python -m` does by itself has its own tests.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.standalone.preloaded"])


@dataclass(frozen=True)
class Command:
    """A command that runs, or has run."""

    process: BaseProcess
    told: tuple[Path, Path]  # files of stdout and stderr

    @property
    def stdout(self) -> str:
        return self.told[0].read_text("utf-8")

    @property
    def stderr(self) -> str:
        return self.told[1].read_text("utf-8")

    def ended(self, timeout: float = 240) -> int:
        """Its exit code; it is killed where it does not come to an end."""
        self.process.join(timeout)
        self.process.kill()
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


def start(arguments: Sequence[str], folder: Path, **environment: str) -> Command:
    """`python -m lib_instantstyle` with these arguments, in this environment and more; it speaks into the folder."""
    number = len(list(folder.glob("*.out")))
    told = folder / f"{number}.out", folder / f"{number}.err"
    told[0].touch()
    around = {**os.environ, **environment}  # now, not when the process was started that others are forked from
    process = _CONTEXT.Process(target=_run, args=(list(arguments), around, [str(path) for path in told]))
    process.start()
    return Command(process, told)


def _run(arguments: list[str], environment: Mapping[str, str], told: Sequence[str]) -> None:
    import torch

    from lib_instantstyle.standalone.cli.app import main

    for stream, path in enumerate(told, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    sys.exit(main(arguments))
