"""Rows that a power cut cannot take back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib_instantstyle.standalone.training.row_store import MISSING, THERE, RowStore


def test_a_row_counts_only_when_its_data_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RowStore(tmp_path / "rows", 3, {"a": (2,), "b": (4,)}, np.float32)
    flushed: list[tuple[str, list[int]]] = []

    def flush(array: np.memmap) -> None:
        flushed.append((Path(str(array.filename)).stem, store.state.tolist()))

    monkeypatch.setattr(np.memmap, "flush", flush)
    rows = {row: {"a": torch.ones(2), "b": torch.ones(4)} for row in range(3)}
    list(store.fill([0, 1, 2], lambda wanted: {row: rows[row] for row in wanted}, 2))
    first, second = [MISSING] * 3, [THERE, THERE, MISSING]
    assert flushed == [("a", first), ("b", first), ("a", second), ("b", second)]
    assert store.state.tolist() == [THERE] * 3
