"""The index of a results folder: index.json for machines, index.html as a contact sheet, written after every cell."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...files.whole_files import write_whole
from ...reference.pictures import Picture
from .references import slug

THUMBNAIL = 256  # pixels, the longer side of a reference on the sheet

_PAGE = """<!doctype html>
<meta charset="utf-8"><title>InstantStyle</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 14px system-ui, sans-serif; margin: 1rem }}
th {{ max-width: 16rem; padding: .5rem; font-weight: 500; text-align: left; vertical-align: top }}
td {{ padding: .25rem; vertical-align: top }}
img {{ width: 16rem; height: auto; display: block; margin-bottom: .25rem }}
th img {{ width: 8rem }}
</style>
<table>
<tr><th></th>{heads}</tr>
{rows}
</table>
"""


@dataclass(frozen=True)
class Cell:
    """One reference with one prompt."""

    id: str  # hash of the whole job; empty when there is none, because the reference cannot be read
    reference: str
    prompt: str
    files: tuple[str, ...] = ()  # names inside the folder
    seconds: float | None = None  # that it took; None when it was there before
    error: str = ""
    picture: str = ""  # hash of the reference's, of the first of several; empty when it cannot be read

    @property
    def key(self) -> tuple[str, str, str]:
        """Two references with the same pixels make the same job, and yet two cells."""
        return self.reference, self.prompt, self.id

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "files": list(self.files)}


@dataclass
class Index:
    """What a folder holds, of this run and of earlier ones."""

    folder: Path
    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Index:
        """The index of a folder; cells whose pictures are gone are left out, and so is what cannot be read."""
        try:
            entries = json.loads((folder / "index.json").read_text("utf-8"))["cells"]
            cells = [Cell(**{**entry, "files": tuple(entry["files"])}) for entry in entries]
        except (OSError, ValueError, KeyError, TypeError):
            cells = []
        index = cls(folder)
        index.cells = {cell.key: cell for cell in cells if cell.id and index.holds(cell)}
        return index

    def holds(self, cell: Cell) -> bool:
        """Whether all pictures of the cell are there; they are written whole or not at all."""
        return bool(cell.files) and all((self.folder / name).is_file() for name in cell.files)

    def known(self, cell: Cell) -> Cell:
        """The cell as it was made, which may have been long ago."""
        return self.cells.get(cell.key, cell)

    def add(self, cell: Cell) -> None:
        """Take in a cell just made, and write."""
        self.cells[cell.key] = cell
        self.write([])

    def write(self, wanted: Sequence[Cell]) -> None:
        """Write both files: all cells that are known, and those wanted."""
        cells = {**self.cells, **{cell.key: cell for cell in wanted}}
        data = {"cells": [cell.as_json() for cell in cells.values()]}
        text = json.dumps(data, ensure_ascii=False, indent=1)
        write_whole(self.folder / "index.json", lambda path: path.write_text(text, "utf-8"))
        page = sheet(list(cells.values()))
        write_whole(self.folder / "index.html", lambda path: path.write_text(page, "utf-8"))

    def keep_reference(self, name: str, picture: Picture) -> None:
        """A small copy of a reference, for the sheet."""
        small = picture.image.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        write_whole(self.folder / thumbnail(name, picture.hash), partial(small.save, format="PNG"))


def thumbnail(reference: str, picture_hash: str) -> str:
    """Where the small copy of a reference lies, in the folder: names of files may be alike where names are not."""
    return f"references/{slug(reference)}-{picture_hash[:12]}.png"


def sheet(cells: Sequence[Cell]) -> str:
    """A page with a row for each reference, two where its picture was replaced, and a column for each prompt."""
    prompts = list(dict.fromkeys(cell.prompt for cell in cells))
    references: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        references.setdefault((cell.reference, cell.picture), []).append(cell)
    heads = "".join(f"<th>{html.escape(prompt)}</th>" for prompt in prompts)
    rows = [_row(*reference, prompts, row) for reference, row in references.items()]
    return _PAGE.format(heads=heads, rows="\n".join(rows))


def _row(reference: str, picture_hash: str, prompts: Sequence[str], cells: Sequence[Cell]) -> str:
    columns = [[cell for cell in cells if cell.prompt == prompt] for prompt in prompts]
    filled = "".join(f"<td>{''.join(map(_shown, column))}</td>" for column in columns)
    small = f'<img src="{thumbnail(reference, picture_hash)}" alt="">' if picture_hash else ""
    return f"<tr><th>{small}{html.escape(reference)}</th>{filled}</tr>"


def _shown(cell: Cell) -> str:
    if cell.error:
        return html.escape(cell.error)
    names = map(html.escape, cell.files)
    return "".join(f'<a href="{name}"><img loading="lazy" src="{name}" alt="{name}"></a>' for name in names)
