"""A thousand jobs in a row in one WebUI: memory stays where it was after the first hundred. Slow, so asked for only.

LIVE_JOBS=1000 WEBUI_DIR=… python -m pytest tests/live/test_live_many_jobs.py
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from live_world import as_base64, picture

JOBS = int(os.environ.get("LIVE_JOBS", "0"))
SETTINGS = {"steps": 1, "width": 64, "height": 64}
PICTURES = [as_base64(picture(seed, (64, 64))) for seed in range(20)]
MOST_OBJECTS, MOST_BYTES = 2000, 64 << 20  # between the two looks, the WebUI's own growth included


def asked(number):
    """Units for the job of that number: none, good ones, and one in ten that is refused."""
    if number % 5 == 4:
        return ()
    unit = {"image": PICTURES[number % len(PICTURES)], "weight": 0.5 + number % 4 / 4}
    if number % 10 == 3:
        return ({**unit, "preset": "nothing"},)
    return ({**unit, "content_prompt": "a rabbit"},) if number % 3 else (unit, {**unit, "preset": "layout"})


def held():
    """Objects, and bytes of the process."""
    gc.collect()
    return len(gc.get_objects()), int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture
def one_event_loop(webui):
    """For all requests. The test client would make one for each, and each leaves some objects behind."""
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as webui.client.portal:
        yield
    webui.client.portal = None


@pytest.mark.usefixtures("one_event_loop")
@pytest.mark.skipif(JOBS < 200, reason="set LIVE_JOBS=1000 to run a thousand jobs in a row")
def test_memory_is_flat_over_many_jobs(webui, by_the_book):
    plain = by_the_book.plain("txt2img", SETTINGS)
    for number in range(100):
        webui.txt2img(*asked(number), **SETTINGS)
    objects, size = held()
    for number in range(100, JOBS):
        job = webui.txt2img(*asked(number), **SETTINGS)
        assert job.status == (422 if number % 10 == 3 else 200), job.answer
    more_objects, more_bytes = (after - before for after, before in zip(held(), (objects, size)))
    assert more_objects < MOST_OBJECTS
    assert more_bytes < MOST_BYTES
    assert not webui.hooks()
    assert webui.txt2img(**SETTINGS).same_as(plain)
