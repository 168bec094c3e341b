"""What a batch is made of, as it lies on disk: reference pictures and prompts."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from ...reference.pictures import SUFFIXES, Picture, read_picture
from ...units.errors import InstantStyleError, PictureError
from ..hidden import is_hidden

STAND_IN = Image.new("RGB", (1, 1))  # for the pictures of a unit that is checked before any is read


@dataclass(frozen=True)
class Style:
    """One style: a picture, or several that are read together. Its files are read when they are needed, not kept."""

    name: str
    paths: tuple[Path, ...]
    folder: Path | None = None  # that was named in place of its files: then a file that cannot be read stops nothing

    def open(self) -> tuple[Picture, ...]:
        """Its pictures, decoded. Raises PictureError naming the file."""
        return tuple(open_picture(path) for path in self.paths)

    def read(self) -> tuple[tuple[Picture, ...], str]:
        """Its pictures, or none and why. Raises PictureError where the files were named one by one."""
        try:
            return self.open(), ""
        except PictureError as error:
            if self.folder is None:
                raise
            return (), error.message


def of_lora(path: Path) -> Style:
    """A style that lies in a LoRA file and in no picture. Raises InstantStyleError when there is no such file."""
    if not path.expanduser().is_file():
        raise InstantStyleError(f"There is no file {path}. Check the path.")
    return Style(path.stem, ())


def open_picture(path: Path, read: Callable[[str], Picture] = read_picture) -> Picture:
    """The picture in a file. Raises PictureError naming the file."""
    if not path.expanduser().is_file():
        raise PictureError(f"There is no file {path}. Check the path.")
    try:
        return read(base64.b64encode(path.expanduser().read_bytes()).decode())
    except PictureError as error:
        raise PictureError(f"{path}: {error.message}") from None


def find_styles(paths: Sequence[Path]) -> tuple[Style, ...]:
    """Single files are one style together; a folder gives one for each of its pictures. Nothing is read yet.

    Raises InstantStyleError for files beside folders and for a folder without pictures.
    """
    folders = [path for path in paths if path.expanduser().is_dir()]
    if folders and len(folders) < len(paths):
        raise InstantStyleError(
            "--style takes either files, which are read together as one style, or folders, in which each picture is a "
            "style of its own; got both. Put the files into a folder, or leave the folder out."
        )
    if not folders:
        return (Style(_name(paths), tuple(paths)),)
    found = [Style(path.stem, (path,), folder) for folder in folders for path in _pictures_in(folder.expanduser())]
    if not found:
        raise no_pictures(folders)
    return _told_apart(found)


def no_pictures(folders: Iterable[Path | None]) -> InstantStyleError:
    """What is said where the folders of --style hold nothing that can be used."""
    listed = ", ".join(dict.fromkeys(str(folder) for folder in folders))
    return InstantStyleError(f"There is no readable picture in {listed}. Put PNG or JPEG files there.")


def _told_apart(styles: Iterable[Style]) -> tuple[Style, ...]:
    """The styles with names that differ: of two `cat`, the second is called `cat-2`."""
    named: dict[str, Style] = {}
    for one in styles:
        name, number = one.name, 1
        while name in named:
            number += 1
            name = f"{one.name}-{number}"
        named[name] = replace(one, name=name)
    return tuple(named.values())


def _pictures_in(folder: Path) -> list[Path]:
    shown = (path for path in folder.iterdir() if not is_hidden(path.relative_to(folder)))
    return sorted(path for path in shown if path.suffix.lower() in SUFFIXES and path.is_file())


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
        raise InstantStyleError(f"{file} is not UTF-8 text. Save it as UTF-8, one prompt per line.") from None
    except OSError as error:
        raise InstantStyleError(f"{file} cannot be read ({error.strerror}). Check the path.") from None
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def slug(text: str) -> str:
    """A piece of a file name that a person recognises `text` by."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-") or "x"
