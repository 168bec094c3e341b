"""What was measured, as Markdown for people and as JSON for `python -m benchmarks.plot`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .timing import Spread

NOT_RUN = "not run"

Cell = float | int | str | Spread


@dataclass(frozen=True)
class Table:
    """Rows by name; every row has a cell for each column."""

    name: str
    columns: Mapping[str, str]  # column → how its numbers are written, as in an f-string
    rows: Mapping[str, Mapping[str, Cell]]
    note: str = ""

    @property
    def markdown(self) -> str:
        head = f"| {' | '.join([self.name, *self.columns])} |"
        rule = f"|{'|'.join(['---'] * (len(self.columns) + 1))}|"
        lines = [f"| {' | '.join([row, *self._written(cells)])} |" for row, cells in self.rows.items()]
        return "\n".join([head, rule, *lines, *(["", self.note] if self.note else []), ""])

    def _written(self, cells: Mapping[str, Cell]) -> list[str]:
        if NOT_RUN in cells:
            return [f"{NOT_RUN}: {cells[NOT_RUN]}", *[""] * (len(self.columns) - 1)]
        return [_written(cells.get(column, ""), form) for column, form in self.columns.items()]

    def as_json(self) -> dict[str, Any]:
        rows = {row: {column: _plain(cell) for column, cell in cells.items()} for row, cells in self.rows.items()}
        return {"name": self.name, "rows": rows, "note": self.note}


def _written(cell: Cell, form: str) -> str:
    return cell if isinstance(cell, str) else format(cell, form)


def _plain(cell: Cell) -> Any:
    return asdict(cell) if isinstance(cell, Spread) else cell


def not_run(why: str) -> dict[str, Cell]:
    """The row of something that was not measured."""
    return {NOT_RUN: why}
