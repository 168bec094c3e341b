"""When a unit acts: a window over the progress of sampling."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The share of a sampling pass in which a unit acts; `start` and `end` run from 0 to 1."""

    start: float = 0.0
    end: float = 1.0

    def contains(self, progress: float) -> bool:
        """Whether the model call at `progress` counts: start ≤ t < end, or t ≥ start when the end is 1."""
        return self.start <= progress and (progress < self.end or self.end >= 1.0)

    def holds_a_step_of(self, total_steps: int) -> bool:
        """Whether any call of a pass with `total_steps` model calls falls inside."""
        return any(self.contains(progress_at(step, total_steps)) for step in range(total_steps))


def progress_at(step: int, total_steps: int) -> float:
    """Progress t = step / total_steps of one model call, clamped to 1: adaptive samplers overrun their total."""
    return min(step / max(total_steps, 1), 1.0)
