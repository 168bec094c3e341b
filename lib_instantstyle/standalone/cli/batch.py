"""References × prompts: each cell is made once, under a name that hashes its whole job, so a batch can be resumed."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...files.image_encoders import EncoderInfo
from ...files.whole_files import write_whole
from ...reference.names import encoder_name, fingerprint, tower_name
from ...reference.pictures import content_hash
from ...units.errors import TextTowerNotFoundError
from ...units.methods import ADAPTER
from ...units.unit import PICTURE_FIELDS, StyleUnit
from .. import Job, StandaloneHost
from ..model_identity import PARTS, described, description_identity, identity
from ..models import Checkpoint, Model, quiet_libraries
from ..named_files import NamedFiles
from .output import Report
from .references import Style, no_pictures, slug
from .sheet import Cell, Index


@dataclass(frozen=True)
class Setting:
    """What all cells of a batch share."""

    model: Model
    files: NamedFiles
    controlnet: str | None
    device: str
    dtype: str

    def open(self) -> StandaloneHost:
        """The models, loaded."""
        adapters, encoders = self.files.adapter_folders(), self.files.encoder_folders()
        at = {"device": self.device, "dtype": self.dtype}
        return StandaloneHost.open(self.model, adapters, encoders, controlnet=self.controlnet, **at)

    def identity(self, unit: StyleUnit) -> dict[str, str]:
        """What a unit is made with, so that other models make other cells; the device is not part of it.

        Raises InstantStyleError when something is missing.
        """
        reads_words = unit.removes_content and bool(unit.content_prompt.strip())
        return {
            **self._of_the_model(),
            "controlnet": _of_controlnet(self.controlnet) if self.controlnet else "",
            **(self._of_the_reader(reads_words) if unit.method == ADAPTER else {}),
            "lora": fingerprint(self.files.loras.named(unit.lora).path) if unit.lora else "",
            "dtype": self.dtype,
        }

    def _of_the_reader(self, reads_words: bool) -> dict[str, str]:
        """What reads a picture's style, and words beside it."""
        adapter = self.files.adapter("auto")
        encoder = self.files.encoder(adapter.feature)
        return {
            "adapter": fingerprint(adapter.path),
            "encoder": encoder_name(encoder),
            "text_tower": self._of_the_tower(encoder) if reads_words else "",
        }

    def _of_the_model(self) -> dict[str, str]:
        if isinstance(self.model, Checkpoint):
            return {"model": identity(self.model.path), "config": description_identity(self.model)}
        folder = Path(self.model).expanduser()
        parts = [folder / part for part in PARTS if (folder / part).is_dir()]
        if not parts:
            return {"model": identity(self.model)}
        return {"model": " ".join(map(identity, parts)), "config": described(str(folder))}

    def _of_the_tower(self, encoder: EncoderInfo) -> str:
        """A file's that fits the encoder; where there is none, the model's own reads, which is part of the model."""
        try:
            tower = self.files.text_tower(encoder, None)
        except TextTowerNotFoundError:
            return ""
        return tower_name(tower) if tower else ""


def _of_controlnet(model: str) -> str:
    """A file with its config beside it is opened as its folder."""
    path = Path(model).expanduser()
    return identity(path.parent if path.is_file() and path.with_name("config.json").is_file() else model)


@dataclass
class Batch:
    """All cells, and where they go. Of the styles, one is in memory at a time."""

    out: Path
    setting: Setting
    styles: tuple[Style, ...]
    prompts: tuple[str, ...]
    job: Job  # what all cells have in common
    unit: StyleUnit  # likewise; each has its style's pictures

    def run(self, quiet: bool = False) -> Report:
        """Make the cells that are not there yet, and write the index after each. Raises InstantStyleError."""
        index = Index.read(self.out)
        cells = self._cells(index)
        missing = [cell for cell in cells if not cell.error and not index.holds(cell)]
        if missing:
            self._make(missing, index, quiet)
        index.write([replace(index.known(cell), error=cell.error) for cell in cells])
        return self._report(cells, missing)

    def _cells(self, index: Index) -> list[Cell]:
        shared = self.setting.identity(self.unit)
        told = told_of(self.job, self.unit)
        cells = [cell for style in self.styles for cell in self._cells_of(style, index, told, shared)]
        if all(cell.error for cell in cells):
            raise no_pictures(style.folder for style in self.styles)
        return cells

    def _cells_of(self, style: Style, index: Index, told: dict[str, Any], shared: Mapping[str, str]) -> Iterator[Cell]:
        pictures, error = style.read()
        if error:
            yield from (Cell("", style.name, prompt, error=error) for prompt in self.prompts)
            return
        if pictures:
            index.keep_reference(style.name, pictures[0])
        hashes = [picture.hash for picture in pictures]
        for prompt in self.prompts:
            digest = cell_id(told, prompt, hashes, shared)
            stem = f"{slug(style.name)}--{slug(prompt)}--{digest}"
            files = tuple(f"{stem}-{seed}.png" for seed in range(self.job.seed, self.job.seed + self.job.count))
            yield Cell(digest, style.name, prompt, files, picture=hashes[0] if hashes else "")

    def _make(self, missing: list[Cell], index: Index, quiet: bool) -> None:
        from tqdm import tqdm

        quiet_libraries(bars=not quiet)
        host = self.setting.open()
        alone = len(missing) == 1
        host.pipe.set_progress_bar_config(disable=quiet or not alone, leave=False)
        styles = {style.name: style for style in self.styles}
        shown = tqdm(missing, desc="cells", unit="cell", disable=quiet or alone, file=sys.stderr)
        for name, cells in groupby(shown, key=lambda cell: cell.reference):
            unit = replace(self.unit, image=tuple(picture.image for picture in styles[name].open()))
            for cell in cells:
                index.add(self._made(host, cell, unit))

    def _made(self, host: StandaloneHost, cell: Cell, unit: StyleUnit) -> Cell:
        started = time.monotonic()
        pictures = host.generate(replace(self.job, prompt=cell.prompt, units=(unit,)))
        for name, picture in zip(cell.files, pictures):
            save_picture(picture, self.out / name)
        return replace(cell, seconds=round(time.monotonic() - started, 2))

    def _report(self, cells: list[Cell], missing: list[Cell]) -> Report:
        made = {cell.key for cell in missing}
        said = []
        for cell in cells:
            status = "failed" if cell.error else "made" if cell.key in made else "kept"
            said.append({**cell.as_json(), "status": status, "files": [str(self.out / name) for name in cell.files]})
        failed = [f"{cell.reference}: {cell.error}" for cell in cells if cell.error]
        paths = [path for one in said for path in one["files"]]
        text = "\n".join([*paths, *dict.fromkeys(failed), str(self.out / "index.html")])
        return Report(text, {"out": str(self.out), "cells": said}, not failed)


def told_of(job: Job, unit: StyleUnit) -> dict[str, Any]:
    """What the pictures of all cells depend on, as JSON has it; prompt and reference pictures come with each cell."""
    told: dict[str, Any] = {name: getattr(job, name) for name in job.__dataclass_fields__ if name != "at_once"}
    for name in ("init", "control"):
        told[name] = content_hash(told[name]) if told[name] is not None else None
    beside = [name for name in PICTURE_FIELDS if name != "image"]
    pictures = {name: [content_hash(image) for image in getattr(unit, name)] for name in beside}
    return {**told, "units": [{**unit.to_dict(), **pictures}]}


def cell_id(told: Mapping[str, Any], prompt: str, pictures: Sequence[str], shared: Mapping[str, str]) -> str:
    """12 hex digits that change with anything a picture depends on. `pictures`: the reference's hashes."""
    units = [{**unit, "image": list(pictures)} for unit in told["units"]]
    text = json.dumps([{**told, "prompt": prompt, "units": units}, shared], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def save_picture(picture: Image.Image, path: Path) -> None:
    """A PNG with the picture's parameters in its text chunk, where the WebUI's PNG Info looks for them."""
    told = PngInfo()
    told.add_text("parameters", picture.info.get("parameters", ""))
    write_whole(path, lambda partial: picture.save(partial, "PNG", pnginfo=told))
