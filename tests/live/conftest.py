"""Live tests: against the WebUI that the environment variable WEBUI_DIR names, run with its own Python.

    WEBUI_DIR=~/stable-diffusion-webui ~/stable-diffusion-webui/venv/bin/python -m pytest tests/live

Neighbours are looked for among the WebUI's extensions, and in the folders that WEBUI_EXTENSIONS names.
The WebUI's own folder is only read: models, settings and extensions come from a temporary data folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from live_condition import USUAL, from_environment
from live_report import Row, note_places, rows_of, table

HERE = Path(__file__).parent
SKIPPED = "live tests were not run: set WEBUI_DIR to a WebUI and run them with its Python, see README"
SHIPPED_WITH_WEBUI = ("gradio", "fastapi")
ROWS: list[Row] = []  # of the table that ends the run


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the live tests; with no WebUI to test, leave one of them, to be skipped for all in one line."""
    live = [item for item in items if HERE in item.path.parents]
    note_places(live)
    for item in live:
        item.add_marker(pytest.mark.live)
    if live and not os.environ.get("WEBUI_DIR"):
        live[0].add_marker(pytest.mark.skip(reason=f"{len(live)} {SKIPPED}"))
        _deselect(config, items, live[1:])
    elif from_environment() is None:
        _deselect(config, items, [item for item in live if item.get_closest_marker("under_condition")])


def _deselect(config: pytest.Config, items: list[pytest.Item], unwanted: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=unwanted)
    items[:] = [item for item in items if item not in unwanted]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    ROWS.extend(rows_of(report))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The matrix of what was tried."""
    if ROWS:
        terminalreporter.section("live matrix")
        for line in table(ROWS):
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True, scope="session")
def webui_folder() -> Path:
    """The WebUI to test against. Once it is named, anything that keeps it from running is a failure."""
    folder = Path(os.environ["WEBUI_DIR"]).expanduser().resolve()
    if not (folder / "webui.py").is_file():
        pytest.fail(f"WEBUI_DIR is {folder}, but there is no webui.py in it.", pytrace=False)
    for name in SHIPPED_WITH_WEBUI:
        if find_spec(name) is None:
            pytest.fail(f"{sys.executable} has no {name}: run live tests with the WebUI's own Python.", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def world(webui_folder):
    """The data folder that the WebUI runs on; it is gone afterwards."""
    from live_world import make_world

    with tempfile.TemporaryDirectory(prefix="instantstyle-live-") as folder:
        yield make_world(Path(folder).resolve(), webui_folder, from_environment() or USUAL)


@pytest.fixture(scope="session")
def webui(webui_folder, world) -> Iterator[object]:
    """The WebUI, started once, inside this process."""
    from live_webui import start

    with pytest.MonkeyPatch.context() as patch:
        yield start(webui_folder, world.folder, from_environment() or USUAL, patch)


@pytest.fixture(scope="module")
def server(webui_folder, world) -> Iterator[object]:
    """The WebUI as a process of its own, for the tests of one file."""
    from live_server import running

    with running(webui_folder, world.folder) as started:
        started.wait_until(lambda: started.get("/instantstyle/version").status_code == 200)
        yield started


@pytest.fixture
def browser() -> Iterator[object]:
    from live_browser import browsing

    with browsing() as started:
        yield started


@pytest.fixture
def page(browser, server):
    """A page of the server's WebUI, loaded and ready."""
    from live_browser import open_page

    return open_page(browser, server.url)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three pictures, as files."""
    from live_world import picture

    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    return paths


@pytest.fixture(scope="session")
def by_the_book(webui, world):
    """Compares what the extension makes with what the formula gives."""
    from live_comparison import Comparison

    return Comparison(webui, world)


@pytest.fixture(scope="session")
def matrix(webui, world):
    from live_case import Matrix

    return Matrix(webui, world, from_environment() or USUAL)


@pytest.fixture
def examine(matrix, record_property):
    """Runs a case of the matrix and writes down what was seen."""
    return lambda case: record_property("seen", matrix.examine(case))


@pytest.fixture(autouse=True)
def no_hook_left(request):
    """After every test that had a WebUI in this process, none of our hooks may be left on any module."""
    yield
    if "webui" in request.fixturenames:
        assert not request.getfixturevalue("webui").hooks()
