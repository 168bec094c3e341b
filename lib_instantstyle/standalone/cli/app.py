"""Parse, run one command, and turn what went wrong into a message and an exit code.

0: done. 1: it failed (memory, disk, a check of `doctor`). 2: refused (usage, a file or value that cannot be honoured).
Results go to stdout, messages and progress to stderr.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from ... import __version__
from ...units.errors import InstantStyleError
from . import analyze, doctor, inspecting, stylize, training
from .output import Report, answer, complain

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
COMMANDS: tuple[Callable[..., None], ...] = (
    stylize.add_to,
    analyze.add_to,
    training.add_to,
    inspecting.add_to,
    doctor.add_to,
)


_MEMORY = ("out of memory", "allocate memory")  # as torch says it of a GPU and of the CPU


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; only wrong usage leaves by argparse's own SystemExit(2)."""
    options = parser().parse_args(argv)
    try:
        report: Report = options.run(options)
    except Exception as error:
        code, message = verdict(error, getattr(options, "smaller", ""))
        if message is None:
            raise
        if options.answers() or not getattr(error, "shared", False):
            complain(message)
        if options.answers() and options.json:
            answer(_as_json(error, message))
        return code
    except KeyboardInterrupt:
        if options.answers():
            complain("Stopped. Finished results are kept; run the same command to continue (for train, add --resume).")
        return INTERRUPTED
    if options.answers():
        answer(report.data if options.json else report.text)
    return OK if report.fine else FAILED


def verdict(error: Exception, smaller: str = "") -> tuple[int, str | None]:
    """Exit code and message of an error that can be expected; no message for one that cannot.

    `smaller`: what makes the command's job smaller, by its own options.
    """
    if isinstance(error, InstantStyleError):
        return FAILED if error.status_code >= 500 else REFUSED, str(error)
    if _is_out_of_memory(error):
        return FAILED, f"Not enough memory for this job. {smaller or 'Close other programs and try again.'}"
    if isinstance(error, OSError):
        return FAILED, f"{error.filename or 'A file'}: {error.strerror or error}. Check the path and the space left."
    return FAILED, None


def _is_out_of_memory(error: Exception) -> bool:
    told = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(x in told for x in _MEMORY))


def _as_json(error: Exception, message: str) -> dict[str, object]:
    if isinstance(error, InstantStyleError):
        return error.as_json()
    return {"error": type(error).__name__, "message": message}


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    made = argparse.ArgumentParser(
        prog="python -m lib_instantstyle",
        description="InstantStyle without the WebUI: pictures of your prompt in the style of a reference picture.",
    )
    made.set_defaults(answers=lambda: True)  # whether this process is the one that reports
    made.add_argument("--version", action="version", version=__version__)
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_to in COMMANDS:
        add_to(commands)
    return made
