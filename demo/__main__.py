"""The embedded default: `python -m demo` draws a picture sheet in the styles of references, and measures it.

Without options on the world that ships with the project; with --model, --adapter and --encoder on models of yours,
where CLIP's similarities stand in for the judge.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lib_instantstyle.core.errors import InstantStyleError

from .modes import SDXL, WORLD
from .own_models import add_options, open_own, own_sampling, own_trials
from .scores import ClipGauge, JudgeGauge
from .show import Setup, Shown, show
from .trials import Sampling, held_out_trials
from .world.host import open_world

OUT = Path("demo/out")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m demo", description=__doc__.split("\n\n")[0])
    made.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="where everything goes (default: demo/out)")
    made.add_argument("--references", type=int, default=12, help="references that are measured (default: 12)")
    made.add_argument("--prompts", type=int, default=6, help="prompts for each, 9 at most (default: 6)")
    add_options(made.add_argument_group("models of yours"))
    return made


def run(options: argparse.Namespace) -> Shown:
    """Raises InstantStyleError when something asked for cannot be honoured."""
    if options.model:
        trials, host = own_trials(options), open_own(options)
        return show(Setup(host, ClipGauge(host), SDXL, own_sampling(options)), trials, options.out)
    trials = held_out_trials(options.references, options.prompts)
    return show(Setup(open_world(options.out / "models"), JudgeGauge(), WORLD, Sampling()), trials, options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        shown = run(options)
    except InstantStyleError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    numbers = options.out / "demo.json"
    numbers.write_text(json.dumps(shown.numbers, indent=1, ensure_ascii=False), "utf-8")
    print(f"\n{shown.table}\n\n{time.monotonic() - started:.0f} s. Wrote:")
    for path in (*shown.pictures, numbers):
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
