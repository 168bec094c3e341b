"""The same job three times: plain, styled by the extension, and styled by the formula written out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from live_recording import Pass
from live_webui import Job, LiveWebUI
from live_world import World
from oracle import Styling, styling
from torch import Tensor

# In shares of the deviation of what is compared. The extension may miss the formula by TOLERANCE: float32 sums are
# taken in another order, and carried through layers and steps (measured: 1e-5). The style must change LEAST_EFFECT, a
# hundred times that; a wrong row, layer, weight or step misses by about as much as the style changes.
TOLERANCE = 1e-4
LEAST_EFFECT = 1e-2


@dataclass
class Comparison:
    """Compares latents pass by pass. Plain jobs are run once for each set of settings."""

    webui: LiveWebUI
    world: World
    _plain: dict[str, Job] = field(default_factory=dict)

    def plain(self, tab: str, settings: dict[str, Any]) -> Job:
        key = json.dumps([tab, settings], sort_keys=True)
        if key not in self._plain:
            self._plain[key] = self.webui.post(tab, (), settings)
        return self._plain[key]

    def assert_equal(
        self,
        units: Sequence[tuple[dict[str, Any], Styling]],
        *,
        rows: Sequence[str] = ("cu",),
        tab: str = "txt2img",
        **settings: Any,
    ) -> Job:
        """Units given both ways, as the API takes them and as the formula sees them, must end in the same latents."""
        plain = self.plain(tab, settings)
        styled = self.webui.post(tab, tuple(unit for unit, _ in units), settings)
        assert styled.status == 200, styled.answer
        with styling(self.world, [styling for _, styling in units], rows):
            expected = self.webui.post(tab, (), settings)
        assert expected.status == 200, expected.answer
        assert len(plain.passes) == len(styled.passes) == len(expected.passes) > 0
        for passes in zip(plain.passes, styled.passes, expected.passes):
            assert_close(*passes)
        return styled


def assert_close(plain: Pass, styled: Pass, expected: Pass) -> None:
    """`styled` is `expected`, in every call of the UNet and in the end, and far enough from `plain`."""
    effect = max(map(distance, styled.predictions, plain.predictions))
    assert effect > LEAST_EFFECT * plain.predictions[0].std(), f"the style hardly changed anything: {effect:.2g}"
    for got, wanted in zip(styled.tensors, expected.tensors):
        error = distance(got, wanted)
        assert error < TOLERANCE * wanted.std(), f"off by {error:.2g} where the style changes {effect:.2g}"


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference between two tensors."""
    return (one - other).abs().max().item()
