"""A download arrives whole, or what arrived is gone on with; served by a web server of this test's own."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from lib_instantstyle.files.downloads import Download, DownloadError, fetch

CONTENT = bytes(range(256)) * 9000  # more than two chunks
LARGE = 1 << 60


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT, and several ways of not serving it."""

    asked: ClassVar[list[str]] = []  # the ranges of all requests

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range", ""))
        getattr(self, self.path.strip("/"))()

    def whole(self) -> None:
        self._send(200, CONTENT, len(CONTENT))

    def parts(self) -> None:
        """As a server that knows ranges; as the Hub does, it sends on to another address first."""
        self.send_response(302)
        self.send_header("Location", "/cdn")
        self.end_headers()

    def cdn(self) -> None:
        self._part(CONTENT)

    def breaking(self) -> None:
        """The connection ends after a megabyte, whatever was asked for."""
        self._part(CONTENT, most=1 << 20)

    def shorter(self) -> None:
        self._part(CONTENT[:1000])

    def changed(self) -> None:
        self._part(CONTENT[::-1])

    def _part(self, content: bytes, most: int = LARGE) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:most])

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
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
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


@pytest.mark.parametrize("fault", ["other", "absent", "garbage", "shorter", "broken_chunks"])
def test_what_is_not_the_published_file_is_an_error_and_leaves_nothing(
    address: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match=r"file\.safetensors") as caught:
        fetch(download(f"{address}/{fault}"), tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []
    assert caught.value.status_code == 502


@pytest.mark.parametrize("way", ["longer", "endless"])
def test_nothing_is_read_behind_the_end_of_the_published_file(address: str, way: str, tmp_path: Path) -> None:
    assert fetch(download(f"{address}/{way}"), tmp_path, ignore).read_bytes() == CONTENT


def partial(folder: Path) -> Path:
    return folder / f"file.safetensors.{hashlib.sha256(CONTENT).hexdigest()[:8]}.part"


def test_what_has_arrived_is_kept_and_said_to_be(address: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="have been kept"):
        fetch(download(f"{address}/cut"), tmp_path, ignore)
    assert list(tmp_path.iterdir()) == [partial(tmp_path)]
    assert CONTENT.startswith(partial(tmp_path).read_bytes())


@pytest.mark.parametrize("way", ["whole", "parts"])
@pytest.mark.parametrize("have", [1, 1 << 20, len(CONTENT) - 1, len(CONTENT)])
def test_a_killed_download_is_gone_on_with(address: str, way: str, have: int, tmp_path: Path) -> None:
    """Only the rest is asked for; a server that does not know ranges sends all of it, which is right, too."""
    partial(tmp_path).write_bytes(CONTENT[:have])
    Server.asked.clear()
    assert fetch(download(f"{address}/{way}"), tmp_path, ignore).read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [tmp_path / "file.safetensors"]
    rest = f"bytes={have}-"
    assert Server.asked == {("whole", False): [rest], ("parts", False): [rest, rest]}.get(
        (way, have == len(CONTENT)), []
    )


def test_a_connection_that_breaks_is_made_again(address: str, tmp_path: Path) -> None:
    seen: list[float] = []
    assert fetch(download(f"{address}/breaking"), tmp_path, lambda share, _: seen.append(share)).read_bytes() == CONTENT
    assert seen == sorted(seen)


@pytest.mark.parametrize("way", ["changed", "shorter"])
def test_a_rest_of_another_file_leaves_nothing_and_the_next_time_begins_anew(
    address: str, way: str, tmp_path: Path
) -> None:
    partial(tmp_path).write_bytes(CONTENT[: 1 << 20])
    with pytest.raises(DownloadError):
        fetch(download(f"{address}/{way}"), tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []
    assert fetch(download(f"{address}/parts"), tmp_path, ignore).read_bytes() == CONTENT


def test_what_killed_downloads_left_under_other_names_is_deleted(address: str, tmp_path: Path) -> None:
    for name in ("file.safetensors.0a1b2c3d.part", "file.safetensors.99999999.part"):
        (tmp_path / name).write_bytes(CONTENT)
    for name in ("file.safetensors.mine.part", "other.safetensors.0a1b2c3d.part"):
        (tmp_path / name).write_bytes(b"mine")
    fetch(download(f"{address}/whole"), tmp_path, ignore)
    left = ["file.safetensors", "file.safetensors.mine.part", "other.safetensors.0a1b2c3d.part"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_the_published_address_is_asked_for_at_the_mirror(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{address}/")
    assert fetch(download("https://huggingface.co/whole"), tmp_path, ignore).read_bytes() == CONTENT


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


def test_cancelling_in_the_middle_keeps_what_has_arrived(address: str, tmp_path: Path) -> None:
    def cancel(_share: float, _what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(download(f"{address}/whole"), tmp_path, cancel)
    assert list(tmp_path.iterdir()) == [partial(tmp_path)]
    assert fetch(download(f"{address}/parts"), tmp_path, ignore).read_bytes() == CONTENT


def test_file_larger_than_the_disk_is_not_begun(address: str, tmp_path: Path) -> None:
    assert shutil.disk_usage(tmp_path).free < LARGE
    with pytest.raises(DownloadError, match="are free"):
        fetch(download(f"{address}/whole", LARGE), tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_made_is_an_error(address: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(DownloadError):
        fetch(download(f"{address}/whole"), tmp_path / "file", ignore)


def test_a_second_download_of_the_same_file_waits_for_the_first(address: str, tmp_path: Path) -> None:
    """As from two tabs of a browser, or two WebUIs with one models folder."""
    refused = []

    def begin_another(_share: float, _what: str) -> None:
        with pytest.raises(DownloadError, match="already being downloaded") as caught:
            fetch(download(f"{address}/whole"), tmp_path, ignore)
        refused.append(caught.value)

    assert fetch(download(f"{address}/whole"), tmp_path, begin_another).read_bytes() == CONTENT
    assert refused
    assert [path.name for path in tmp_path.iterdir()] == ["file.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_killed_while_it_downloads_is_gone_on_with(address: str, tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from lib_instantstyle.files.downloads import Download, fetch\n"
        f"fetch(Download(*{('file.safetensors', 'adapter', f'{address}/parts', len(CONTENT), download('').sha256)!r}), "
        f"Path({str(tmp_path)!r}), lambda share, _: os.kill(os.getpid(), 9))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert fetch(download(f"{address}/parts"), tmp_path, ignore).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.safetensors"]
