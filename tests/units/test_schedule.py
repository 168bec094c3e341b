"""When a unit acts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.units.schedule import Window, progress_at

SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("window", "steps", "acting"),
    [
        (Window(), 4, [0, 1, 2, 3]),
        (Window(0.0, 0.5), 4, [0, 1]),
        (Window(0.5, 1.0), 4, [2, 3]),
        (Window(0.25, 0.75), 4, [1, 2]),
        (Window(0.3, 0.4), 4, []),
        (Window(0.0, 0.01), 20, [0]),
        (Window(0.99, 1.0), 20, []),
        (Window(0.95, 1.0), 20, [19]),
    ],
)
def test_window_holds_the_steps_from_start_up_to_but_without_end(window: Window, steps: int, acting: list[int]) -> None:
    assert [step for step in range(steps) if window.contains(progress_at(step, steps))] == acting
    assert window.holds_a_step_of(steps) == bool(acting)


def test_window_to_the_end_holds_calls_beyond_the_total() -> None:
    assert Window(0.5, 1.0).contains(progress_at(25, 20))
    assert not Window(0.5, 0.9).contains(progress_at(25, 20))


def test_progress_runs_from_zero_to_one() -> None:
    assert [progress_at(step, 4) for step in (0, 1, 3, 4, 9)] == [0.0, 0.25, 0.75, 1.0, 1.0]
    assert progress_at(0, 0) == 0.0


@given(SHARES, SHARES, st.integers(1, 60))
def test_adjoining_windows_share_no_step_and_lose_none(cut: float, start: float, steps: int) -> None:
    low, high = min(start, cut), max(start, cut)
    parts = [Window(0.0, low), Window(low, high), Window(high, 1.0)]
    for step in range(steps):
        holders = [part for part in parts if part.start < part.end and part.contains(progress_at(step, steps))]
        assert len(holders) == 1


def test_empty_pass_holds_nothing() -> None:
    assert not Window().holds_a_step_of(0)
