"""Captions as they come: a text, or a list of texts of which one is drawn each time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...units.errors import InstantStyleError

NONE = ("",)  # of a picture that has no caption
KEYS = ("text", "caption")  # of the JSON beside a picture of a shard


def captions_of(value: Any) -> tuple[str, ...] | None:
    """The captions that a JSON value holds: a text or a list of texts, not empty. None for anything else."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        return None
    return tuple(text.strip() for text in texts)


def of_record(record: Any) -> tuple[str, ...] | None:
    """The captions in the JSON beside a picture, under "text" or "caption"."""
    values = [record[key] for key in KEYS if key in record] if isinstance(record, dict) else []
    return captions_of(values[0]) if values else None


def read_metadata(path: Path) -> dict[Path, tuple[str, ...]]:
    """{picture: captions} of a metadata.jsonl; pictures as paths that begin with its folder's.

    Raises InstantStyleError naming the line that is wrong.
    """
    found = {}
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if line.strip():
            name, captions = _metadata_line(line)
            if name is None or captions is None:
                raise InstantStyleError(
                    f'{path}, line {number}: each line must be like {{"file_name": "a.png", "text": "a cat"}}, where '
                    f"text may be a list; got {line[:80]!r}.",
                    "data",
                )
            found[_inside(path.parent, name, f"{path}, line {number}")] = captions
    return found


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


def _metadata_line(line: str) -> tuple[str | None, tuple[str, ...] | None]:
    try:
        record = json.loads(line)
    except ValueError:
        return None, None
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
        return None, None
    return record["file_name"], captions_of(record.get("text"))
