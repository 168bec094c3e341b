"""The tester's WebUI as people run it: a process of its own that answers on a port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from live_condition import USUAL
from live_webui import ARGUMENTS, ENVIRONMENT

PATIENCE = 600  # seconds for a start
HERE = Path(__file__).parent
LAUNCHED = ("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-python-version-check")
RELOAD = "settings_restart_gradio"  # the button's id


@dataclass
class Server:
    """A running WebUI."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, auth: tuple[str, str] | None = None) -> httpx.Response:
        return httpx.get(self.url + path, auth=auth, timeout=60)

    def post(self, path: str, body: dict[str, Any], auth: tuple[str, str] | None = None) -> httpx.Response:
        return httpx.post(self.url + path, json=body, auth=auth, timeout=300)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Come back when `is_so`; raise when the process is gone or takes too long."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            with suppress(httpx.TransportError):
                if is_so():
                    return
            time.sleep(0.5)
        raise RuntimeError(f"The WebUI did not come up:\n{self.log.read_text('utf-8', 'replace')[-3000:]}")

    def press_reload_ui(self) -> None:
        """Press the button of the settings page, and wait for the pages that are built anew."""
        page, before = self.get("/config").json(), self.get("/app_id").text
        button = next(one["id"] for one in page["components"] if one["props"].get("elem_id") == RELOAD)
        number = next(n for n, event in enumerate(page["dependencies"]) if button in event["targets"])
        self.post("/run/predict", {"fn_index": number, "data": []})
        self.wait_until(lambda: self.get("/app_id").text != before)


@contextmanager
def running(webui: Path, data: Path, *arguments: str) -> Iterator[Server]:
    """A server at work on the data folder `data`; it is ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = (*ARGUMENTS, *LAUNCHED, *USUAL.arguments, *arguments, "--port", str(port))
    command = [sys.executable, HERE / "live_launch.py", data / f"forks-{port}", "--data-dir", data, *flags]
    environment = {**os.environ, **ENVIRONMENT, "COMMANDLINE_ARGS": "", "OMP_NUM_THREADS": "1"}
    log = data / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=webui, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Server(f"http://127.0.0.1:{port}", process, log)
        finally:
            process.kill()
            process.wait()
