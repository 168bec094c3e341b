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

from lib_instantstyle.units.errors import InstantStyleError

from .setups import add_setup_options, open_setup
from .show import show

OUT = Path("demo/out")
QUICK = 3


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m demo", description=__doc__.split("\n\n")[0])
    made.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="where everything goes (default: demo/out)")
    made.add_argument("--quick", action="store_true", help="three references and three prompts of the world")
    add_setup_options(made, references=12, prompts=6)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.quick:
        options.references = options.prompts = QUICK
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        shown = show(open_setup(options), options.out)
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
