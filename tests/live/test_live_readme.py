"""The README's example runs as it stands, save for the port and a picture of a size that a processor makes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from live_world import PROJECT, picture
from PIL import Image

SMALLER = {"1024": "128", "30": "2"}


@pytest.fixture
def server(webui_folder, world):
    from live_server import running

    with running(webui_folder, world.folder) as started:
        started.wait_until(lambda: started.get("/instantstyle/version").status_code == 200)
        yield started


def example(url: str) -> str:
    code = re.search(r"```python\n(.+?)```", (PROJECT / "README.md").read_text("utf-8"), re.DOTALL)
    assert code
    text = code[1].replace("http://127.0.0.1:7860", url)
    return re.sub(r"\b(1024|30)\b", lambda number: SMALLER[number[0]], text)


def test_the_example_makes_a_styled_picture(server, tmp_path):
    picture(0).save(tmp_path / "reference.png")
    subprocess.run([sys.executable, "-c", example(server.url)], cwd=tmp_path, check=True, timeout=120)
    made = Image.open(tmp_path / "styled.png")
    assert made.size == (128, 128)
    assert "content_prompt: a rabbit" in made.info["parameters"]
