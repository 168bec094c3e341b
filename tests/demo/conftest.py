"""What the demo's tests share."""

from __future__ import annotations

import PIL
import pytest

_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])
needs_sheet = pytest.mark.skipif(
    _PILLOW < (10, 1), reason="the picture sheet needs Pillow 10.1, for a font of any size"
)
