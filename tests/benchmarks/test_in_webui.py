"""The benchmark in a real WebUI never times a job that failed, or one that is the plain job after all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.in_webui import Contest


class Web:
    """Answers every job with that status; what comes out depends on the units or on nothing."""

    def __init__(self, status: int = 200, *, blind: bool = False) -> None:
        self.status, self.blind = status, blind

    def txt2img(self, *units: Any, **settings: Any) -> Any:
        made = None if self.blind else (units, settings)
        job = SimpleNamespace(status=self.status, answer={"errors": "the plug was pulled"}, made=made)
        job.same_as = lambda other: job.made == other.made
        return job


@pytest.mark.parametrize(
    ("web", "message"), [(Web(500), "500.*the plug was pulled"), (Web(blind=True), "is the plain one")]
)
def test_a_job_that_says_nothing_is_not_timed(web: Web, message: str) -> None:
    job = Contest(web, {"steps": 2})._job({"image": "…"})
    assert job.work is not None
    with pytest.raises(RuntimeError, match=message):
        job.work()


def test_the_plain_job_may_be_plain() -> None:
    plain = Contest(Web(), {"steps": 2})._job()
    assert plain.work is not None
    plain.work()
