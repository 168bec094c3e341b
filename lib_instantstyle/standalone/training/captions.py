"""Captions as they come: beside a picture or in a table of its folder; a text, or texts of which one is drawn."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...units.errors import InstantStyleError

NONE = ("",)  # of a picture that has no caption
KEYS = ("text", "caption")  # of a record that holds captions
SUFFIXES = (".json", ".txt", ".caption")  # of what lies beside a picture, the first that says something counts
TABLES = ("metadata.jsonl", "metadata.csv")  # of a folder, as Hugging Face's imagefolder has them; the first counts
UNREAD_TABLES = ("metadata.parquet",)


def captions_of(value: Any) -> tuple[str, ...] | None:
    """The captions that a JSON value holds: a text or a list of texts, not empty. None for anything else."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return None
    return tuple(text.strip() for text in texts)


def of_record(record: Any) -> tuple[str, ...] | None:
    """The captions in a record, under "text" or "caption"."""
    values = [record[key] for key in KEYS if key in record] if isinstance(record, dict) else []
    return captions_of(values[0]) if values else None


def of_file(data: bytes, suffix: str) -> tuple[str, ...] | None:
    """The captions in a file beside a picture, or None. Raises ValueError for what is neither JSON nor UTF-8."""
    text = data.decode("utf-8-sig")
    return of_record(json.loads(text)) if suffix == ".json" else (text.strip(),)


def read_table(path: Path) -> dict[Path, tuple[str, ...]]:
    """{picture: captions} of a metadata.jsonl or metadata.csv; pictures as paths that begin with its folder's.

    Raises InstantStyleError naming the line that is wrong.
    """
    found = {}
    for number, record in _records(path):
        name, captions = record.get("file_name"), of_record(record)
        if not isinstance(name, str) or captions is None:
            raise InstantStyleError(
                f'{path}, line {number}: each record must be like {{"file_name": "a.png", "text": "a cat"}}, with text '
                f"or caption, which in JSON may be a list; got {str(record.get('', record))[:80]!r}.",
                "data",
            )
        found[_inside(path.parent, name, f"{path}, line {number}")] = captions
    return found


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number and content of each line; what is no record has its text under ""."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InstantStyleError(f"{path} is not UTF-8 text. Save it as UTF-8.", "data") from None
    if path.suffix == ".csv":
        rows = csv.DictReader(lines)
        yield from ((rows.line_num, {name: value for name, value in row.items() if name}) for row in rows)
        return
    yield from ((number, _record(line)) for number, line in enumerate(lines, 1) if line.strip())


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {"": line}
    return record if isinstance(record, dict) else {"": line}


def tables_in(files: Iterable[Path]) -> list[Path]:
    """Of each folder the table that counts."""
    named = sorted((path for path in files if path.name in TABLES), key=lambda path: TABLES.index(path.name))
    first: dict[Path, Path] = {}
    for path in named:
        first.setdefault(path.parent, path)
    return sorted(first.values())


def _inside(folder: Path, name: str, place: str) -> Path:
    """A named picture, however it is named, as a path that begins with the folder's own."""
    named = Path(os.path.normpath(folder.absolute() / name))
    for root in (Path(os.path.normpath(folder.absolute())), folder.resolve()):
        if named != root and named.is_relative_to(root):
            return folder / named.relative_to(root)
    raise InstantStyleError(
        f"{place}: file_name must name a picture inside {folder}; got {name!r}. Move the picture there, or give the "
        "folder that holds them all.",
        "data",
    )
