"""The comparison of removal methods, small: strengths move what they should move."""

from __future__ import annotations

import pytest

from demo import removal

PULL = "pull (project)"  # what plus adapters get

Points = dict[tuple[str, float], removal.Point]


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Points:
    """Nothing removed, and all of it, by probes that were trained for a fifth of the time."""
    bench = removal.open_bench(tmp_path_factory.mktemp("removal"), 120, steps=250, batch=64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(removal, "SCALES", (0.0, 1.0))
        return {(point.method, point.scale): point for point in removal.measure(*bench)}


def test_strength_zero_changes_nothing_whatever_the_method(points: Points) -> None:
    untouched = {(p.features, p.subject, p.style) for (_, scale), p in points.items() if scale == 0}
    assert len(untouched) == len({features for features, _, _ in untouched}) == 2


@pytest.mark.parametrize("method", ["project", PULL])
def test_content_goes_and_style_stays(points: Points, method: str) -> None:
    before, after = points[method, 0.0], points[method, 1.0]
    assert after.subject < before.subject / 2
    assert after.style > 0.9 * before.style


def test_what_plus_adapters_get_keeps_more_style_than_fading(points: Points) -> None:
    assert points[PULL, 1.0].style > points["fade", 1.0].style + 0.1
