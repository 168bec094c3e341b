"""The matrix: the same cases again in WebUIs that were started under another condition, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from live_condition import Condition
from live_report import ROWS, SEEN, Row, name_of

HERE = Path(__file__).parent
PATIENCE = 1800  # seconds for one condition
NEIGHBOURS = ("*freeu*", "*dynamic-thresholding*", "*multidiffusion*", "*regional-prompter*", "*incantations*")

EVERYWHERE = HERE / "test_everywhere.py"
CONDITIONS = {
    "--medvram": Condition(("--medvram",)),
    "--medvram-sdxl": Condition(("--medvram-sdxl",)),
    "--lowvram": Condition(("--lowvram",)),
    "no ControlNet": Condition(extensions=()),
    "ControlNet disabled": Condition(options={"disabled_extensions": ["sd-webui-controlnet"]}),
    "our folder named before ControlNet's": Condition(own_name="0-instantstyle"),
    "our folder named after ControlNet's": Condition(own_name="zz-instantstyle"),
    "fp8 weights, bfloat16 arithmetic": Condition(options={"fp8_storage": "Enable"}, tolerance=0.3),
}


@pytest.mark.matrix("conditions")
@pytest.mark.parametrize("name", CONDITIONS)
def test_under(webui_folder, record_property, tmp_path, name):
    run_under(CONDITIONS[name], name, [EVERYWHERE], record_property, tmp_path)


@pytest.mark.matrix("neighbours")
def test_beside_neighbours(webui_folder, record_property, tmp_path):
    """All of them installed, and one after the other switched on."""
    condition = Condition(extensions=("*controlnet*", *NEIGHBOURS))
    run_under(condition, "all neighbours installed", [HERE / "test_neighbours.py"], record_property, tmp_path)


@pytest.mark.matrix("neighbours")
def test_beside_adetailer(webui_folder, record_property, tmp_path):
    if not any((webui_folder / "extensions").glob("*adetailer*")):
        pytest.skip("the WebUI in WEBUI_DIR has no ADetailer")
    condition = Condition(extensions=("*controlnet*", "*adetailer*"), flags=("--ad-no-huggingface",))
    run_under(condition, "ADetailer", [HERE / "test_adetailer.py"], record_property, tmp_path)


@pytest.mark.matrix("conditions")
def test_half_precision():
    """--precision half, and float16 in general."""
    try:
        torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3).half(), torch.ones(1, 1, 3, 3).half())
    except RuntimeError as error:
        pytest.skip(f"this torch cannot do it on a processor: {error}")
    pytest.fail("This torch computes in half precision: try --precision half here.")


def run_under(condition, name, files, record_property, tmp_path):
    """Run test files under a condition; each of their tests is a row of the table, and all must pass."""
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", *map(str, files), f"--junitxml={report}", f"--rootdir={HERE}"]
    environment = {**os.environ, **condition.as_variable()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert report.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    rows = [row_of(case, name) for case in ElementTree.parse(report).iter("testcase")]
    record_property(ROWS, rows)
    failed = [row for row in rows if row.verdict.startswith("FAILS")]
    assert rows, done.stdout[-3000:]
    assert not failed, "\n".join(f"{row.case}: {row.verdict}" for row in failed)


def row_of(case, place):
    """A row of the table from what the other process wrote of one test."""
    noted = {one.get("name"): one.get("value") for one in case.iter("property")}
    name, verdict = name_of(f"::{case.get('name')}"), noted.get("verdict", "works")
    for trouble, word in (("failure", "FAILS"), ("error", "FAILS"), ("skipped", "not run")):
        for one in case.iter(trouble):
            verdict = f"{word}: {(one.get('message') or '').splitlines()[0][:160]}"
    return Row(place, name, verdict, noted.get(SEEN, ""))
