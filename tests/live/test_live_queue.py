"""Several clients at once: jobs wait for each other, and each gets what it would get alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Thread

import httpx
import pytest
from live_webui import SETTINGS
from live_world import as_base64, picture

STYLED = [{"image": as_base64(picture(seed))} for seed in range(3)]
SLOW = {"steps": 20}


def body(*units, **settings):
    scripts = {"InstantStyle": {"args": list(units)}} if units else {}
    return {**SETTINGS, **settings, "alwayson_scripts": scripts}


def post(server, *units, **settings):
    return server.post("/sdapi/v1/txt2img", body(*units, **settings))


@pytest.fixture(scope="module")
def alone(server):
    """What jobs give that run by themselves: plain first, then each styled one."""
    return [post(server).json()["images"], *(post(server, unit).json()["images"] for unit in STYLED)]


def test_jobs_at_once_give_what_they_give_alone(server, alone):
    asked = [(), *((unit,) for unit in STYLED), ({**STYLED[0], "weight": 9},)] * 3
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda units: post(server, *units), asked))
    for number, answer in enumerate(answers):
        kind = number % 5
        if kind == 4:
            assert (answer.status_code, answer.json()["detail"]["field"]) == (422, "weight")
        else:
            assert answer.json()["images"] == alone[kind], f"job {number}"


def test_an_analysis_between_jobs_waits_and_changes_nothing(server, alone):
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(post, server, unit) for unit in STYLED[:2]]
        looks = [pool.submit(server.post, "/instantstyle/analyze", {**unit, "words": 0}) for unit in STYLED[:2]]
    assert [job.result().json()["images"] for job in jobs] == alone[1:3]
    assert [look.result().status_code for look in looks] == [200, 200]


def test_a_job_whose_client_leaves_while_it_waits_costs_no_other(server, alone):
    first = Thread(target=post, args=(server, STYLED[1]), kwargs=SLOW)
    first.start()
    with suppress(httpx.TimeoutException):
        httpx.post(f"{server.url}/sdapi/v1/txt2img", json=body(STYLED[2]), timeout=0.2)
    assert post(server).json()["images"] == alone[0]
    first.join()
    assert post(server, STYLED[0]).json()["images"] == alone[1]


def test_an_interrupt_meant_for_one_job_does_not_reach_the_next(server, alone):
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, server, STYLED[1], **SLOW)
        second = pool.submit(post, server, STYLED[0])
        server.post("/sdapi/v1/interrupt", {})
    assert first.result().status_code == second.result().status_code == 200
    assert post(server, STYLED[0]).json()["images"] == alone[1]
    assert post(server).json()["images"] == alone[0]
