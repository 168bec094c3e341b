"""A WebUI without any model files: the panel says what is missing, and its button gets it, whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from live_browser import Panel, browsing, open_page
from live_world import make_world, picture

# Another extension, which makes the panel offer the tiny files from this machine in place of the published ones.
LOCAL_FILES = """
from lib_instantstyle.files.downloads import Download
from lib_instantstyle.webui.panel import readiness
readiness.FIRST_ADAPTER = Download("adapter.safetensors", "adapter", "{url}/adapter", {sizes[0]}, "{hashes[0]}")
readiness.FIRST_ENCODER = Download("encoder.safetensors", "encoder", "{url}/encoder", {sizes[1]}, "{hashes[1]}")
"""


@pytest.fixture
def bare(webui_folder, tmp_path):
    """A data folder whose adapter and encoder are not installed but served over HTTP."""
    made = make_world(tmp_path / "data", webui_folder)
    shop = tmp_path / "shop"
    shop.mkdir()
    made.adapter("tiny-base").rename(shop / "adapter")
    made.adapter("tiny-plus").unlink()
    (made.encoder / "model.safetensors").rename(shop / "encoder")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(shop))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield made, shop, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def offer(made, shop, url, *, spoil_hash=False):
    files = [shop / "adapter", shop / "encoder"]
    hashes = ["0" * 64 if spoil_hash else hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    script = LOCAL_FILES.format(url=url, sizes=[file.stat().st_size for file in files], hashes=hashes)
    target = made.folder / "extensions" / "zz-local-files" / "scripts" / "local_files.py"
    target.parent.mkdir(parents=True)
    target.write_text(script, encoding="utf-8")


@pytest.fixture
def opened(webui_folder, bare, request):
    from live_server import running

    made, shop, url = bare
    offer(made, shop, url, spoil_hash=request.param)
    with running(webui_folder, made.folder) as server:
        server.wait_until(lambda: server.get("/instantstyle/version").status_code == 200)
        with browsing() as browser:
            yield Panel(open_page(browser, server.url)), made


@pytest.mark.parametrize("opened", [False], indirect=True)
def test_the_button_brings_what_is_missing(opened, tmp_path):
    panel, _ = opened
    picture(0).save(tmp_path / "reference.png")
    panel.open()
    assert "No SDXL IP-Adapter is installed" in panel.status()
    panel.download_button.click()
    panel.page.wait_for_function(
        "id => document.querySelector(id).innerText.includes('Auto uses')", arg="#script_txt2img_instantstyle_status"
    )
    assert not panel.download_button.is_visible()
    panel.make_small("a cat")
    panel.drop(tmp_path / "reference.png")
    infotext, _ = panel.generate()
    assert "adapter: adapter, preset: style" in infotext


@pytest.mark.parametrize("opened", [True], indirect=True)
def test_a_download_with_the_wrong_hash_leaves_nothing(opened):
    panel, made = opened
    before = sorted(made.adapters.iterdir())  # what is for others
    panel.open()
    panel.download_button.click()
    panel.page.get_by_text("is not the published file").first.wait_for()
    assert "No SDXL IP-Adapter is installed" in panel.status()
    assert sorted(made.adapters.iterdir()) == before
