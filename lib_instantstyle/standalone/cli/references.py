"""What a batch is made of, as it lies on disk: reference pictures and prompts."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...reference.pictures import SUFFIXES, Picture, read_picture
from ...units.errors import InstantStyleError, PictureError


@dataclass(frozen=True)
class Reference:
    """One style: a picture, or several that are read together. `error` says why it cannot be read."""

    name: str
    paths: tuple[Path, ...]
    pictures: tuple[Picture, ...]
    error: str = ""

    @property
    def picture(self) -> Picture | None:
        return self.pictures[0] if self.pictures else None

    @property
    def picture_hash(self) -> str:
        """Of that picture; empty where there is none."""
        return self.picture.hash if self.picture else ""


def open_picture(path: Path) -> Picture:
    """The picture in a file. Raises PictureError naming the file."""
    if not path.expanduser().is_file():
        raise PictureError(f"There is no file {path}. Check the path.")
    try:
        return read_picture(base64.b64encode(path.expanduser().read_bytes()).decode())
    except PictureError as error:
        raise PictureError(f"{path}: {error.message}") from None


def read_references(paths: Sequence[Path]) -> list[Reference]:
    """Single files are one reference together; a folder gives one for each of its pictures.

    A picture of a folder that cannot be read is a reference with an error: the others go on.
    Raises PictureError for a single file that cannot be read, InstantStyleError when nothing is left.
    """
    folders = [path for path in paths if path.expanduser().is_dir()]
    if folders and len(folders) < len(paths):
        raise InstantStyleError(
            "--style takes either files, read together as one style, or folders, a style for each picture; got both. "
            "Put the files into a folder, or leave the folder out."
        )
    if not folders:
        return [Reference(_name(paths), tuple(paths), tuple(open_picture(path) for path in paths))]
    found = [_of_folder(path, folder) for folder in folders for path in _pictures_in(folder.expanduser())]
    if not any(reference.pictures for reference in found):
        raise InstantStyleError(
            f"There is no picture that can be read in {', '.join(map(str, folders))}. Put PNG or JPEG files there."
        )
    return _told_apart(found)


def _of_folder(path: Path, folder: Path) -> Reference:
    try:
        return Reference(path.stem, (path,), (open_picture(path),))
    except PictureError as error:
        return Reference(path.stem, (path,), (), error.message)


def _told_apart(references: Iterable[Reference]) -> list[Reference]:
    """The references with names that differ: of two `cat`, the second is called `cat-2`."""
    named: dict[str, Reference] = {}
    for one in references:
        name, number = one.name, 1
        while name in named:
            number += 1
            name = f"{one.name}-{number}"
        named[name] = Reference(name, one.paths, one.pictures, one.error)
    return list(named.values())


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _name(paths: Sequence[Path]) -> str:
    return paths[0].stem if len(paths) == 1 else f"{paths[0].stem}-and-{len(paths) - 1}-more"


def read_prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of the command line, then those of the file; each once. Raises InstantStyleError for none."""
    lines = _lines(file) if file is not None else []
    prompts = list(dict.fromkeys([*given, *lines]))
    if not prompts:
        raise InstantStyleError("A prompt is needed; none was given. Give --prompt TEXT or --prompts FILE.")
    return prompts


def _lines(file: Path) -> list[str]:
    try:
        text = file.expanduser().read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise InstantStyleError(f"{file} is not UTF-8 text. Save it as UTF-8, one prompt a line.") from None
    except OSError as error:
        raise InstantStyleError(f"{file} cannot be read ({error.strerror}). Check the path.") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def slug(text: str) -> str:
    """A piece of a file name that a person recognises `text` by."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-") or "x"
