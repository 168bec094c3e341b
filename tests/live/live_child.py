"""Live tests run again by a process of its own, for a WebUI that was started under another condition."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from live_condition import Condition
from live_report import SEEN, VERDICT, Row, name_of
from live_world import World

HERE = Path(__file__).parent
PATIENCE = 3600  # seconds


def run_under(condition: Condition, world: World, *arguments: str) -> list[ElementTree.Element]:
    """Run `pytest` with these arguments; give what it wrote of each test. Raises AssertionError when it did not run."""
    report = world.folder / "child.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", f"--rootdir={HERE}", *arguments]
    environment = {**os.environ, **condition.as_variable(world.folder / "models")}
    done = subprocess.run(
        command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert report.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert cases, done.stdout[-3000:]
    return cases


def rows_from(cases: Sequence[ElementTree.Element], place: str) -> list[Row]:
    return [_row(case, place) for case in cases]


def _row(case: ElementTree.Element, place: str) -> Row:
    noted = {one.get("name"): str(one.get("value")) for one in case.iter("property")}
    verdict = noted.get(VERDICT, "works")
    for trouble, word in (("failure", "FAILS"), ("error", "FAILS"), ("skipped", "not run")):
        for one in case.iter(trouble):
            verdict = f"{word}: {(one.get('message') or 'no reason given').splitlines()[0][:160]}"
    return Row(place, name_of(f"::{case.get('name')}"), verdict, noted.get(SEEN, ""))
