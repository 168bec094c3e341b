"""A download arrives whole or leaves nothing behind; served by a web server of this test's own."""

from __future__ import annotations

import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lib_instantstyle.files.downloads import Download, DownloadError, fetch

CONTENT = bytes(range(256)) * 9000  # more than two chunks
LARGE = 1 << 60


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT, and several ways of not serving it."""

    def do_GET(self) -> None:
        getattr(self, self.path.strip("/"))()

    def whole(self) -> None:
        self._send(200, CONTENT, len(CONTENT))

    def other(self) -> None:
        self._send(200, CONTENT[::-1], len(CONTENT))

    def cut(self) -> None:
        self._send(200, CONTENT[:-1000], len(CONTENT))

    def longer(self) -> None:
        self._send(200, CONTENT + b"more", len(CONTENT) + 4)

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):  # the client has seen enough
            while True:
                self.wfile.write(CONTENT)

    def absent(self) -> None:
        self.send_error(404)

    def broken_chunks(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"10000\r\n" + CONTENT[:100])

    def garbage(self) -> None:
        self.wfile.write(b"this is no HTTP at all\r\n\r\n")

    def _send(self, status: int, body: bytes, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def _without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def download(url: str, size: int = len(CONTENT)) -> Download:
    return Download("file.safetensors", "adapter", url, size, hashlib.sha256(CONTENT).hexdigest())


def ignore(_share: float, _what: str) -> None:
    """Nobody watches."""


def test_whole_file_gets_its_name_and_progress_runs_to_one(address: str, tmp_path: Path) -> None:
    seen: list[float] = []
    folder = tmp_path / "not" / "there yet"
    path = fetch(download(f"{address}/whole"), folder, lambda share, _: seen.append(share))
    assert path == folder / "file.safetensors"
    assert path.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [path]
    assert seen == sorted(seen)
    assert (len(seen) > 1, seen[-1]) == (True, 1.0)


@pytest.mark.parametrize("fault", ["other", "cut", "longer", "endless", "absent", "broken_chunks", "garbage"])
def test_anything_else_is_an_error_and_leaves_nothing(address: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"file\.safetensors") as caught:
        fetch(download(f"{address}/{fault}"), tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []
    assert caught.value.status_code == 502


def test_failed_download_leaves_the_file_that_was_there(address: str, tmp_path: Path) -> None:
    (tmp_path / "file.safetensors").write_bytes(b"mine")
    with pytest.raises(DownloadError):
        fetch(download(f"{address}/other"), tmp_path, ignore)
    assert (tmp_path / "file.safetensors").read_bytes() == b"mine"


def test_server_that_is_not_there_is_an_error_with_the_address(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/whole"
    with pytest.raises(DownloadError, match=url):
        fetch(download(url), tmp_path, ignore)


def test_cancelling_in_the_middle_leaves_nothing(address: str, tmp_path: Path) -> None:
    def cancel(_share: float, _what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(download(f"{address}/whole"), tmp_path, cancel)
    assert list(tmp_path.iterdir()) == []


def test_file_larger_than_the_disk_is_not_begun(address: str, tmp_path: Path) -> None:
    assert shutil.disk_usage(tmp_path).free < LARGE
    with pytest.raises(DownloadError, match="are free"):
        fetch(download(f"{address}/whole", LARGE), tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_an_error(address: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(DownloadError):
        fetch(download(f"{address}/whole"), tmp_path / "file", ignore)


def test_a_second_download_that_fails_costs_the_first_nothing(address: str, tmp_path: Path) -> None:
    """As from two tabs of a browser: each has a file of its own until it is whole."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/whole"

    def begin_another(_share: float, _what: str) -> None:
        with pytest.raises(DownloadError):
            fetch(download(nowhere), tmp_path, ignore)

    assert fetch(download(f"{address}/whole"), tmp_path, begin_another).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.safetensors"]
