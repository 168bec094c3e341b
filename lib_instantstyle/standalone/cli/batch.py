"""References × prompts: each cell is made once, under a name that hashes its whole job, so a batch can be resumed."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ...files.image_encoders import EncoderInfo
from ...files.whole_files import write_whole
from ...reference.names import encoder_name, fingerprint, tower_name
from ...reference.pictures import content_hash, read_picture
from ...units.errors import TextTowerNotFoundError
from .. import Job, StandaloneHost
from ..model_identity import PARTS, described, description_identity, identity
from ..models import Checkpoint, Model, quiet_libraries
from ..named_files import NamedFiles
from .output import Report
from .references import Reference, slug
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

    def identity(self, reads_words: bool) -> dict[str, str]:
        """What it is made with, so that other models make other cells; the device is not part of it.

        `reads_words`: whether any cell has a content prompt. Raises InstantStyleError when something is missing.
        """
        adapter = self.files.adapter("auto")
        encoder = self.files.encoder(adapter.feature)
        return {
            **self._of_the_model(),
            "controlnet": _of_controlnet(self.controlnet) if self.controlnet else "",
            "adapter": fingerprint(adapter.path),
            "encoder": encoder_name(encoder),
            "text_tower": self._of_the_tower(encoder) if reads_words else "",
            "dtype": self.dtype,
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
    """All cells, and where they go."""

    out: Path
    setting: Setting
    references: tuple[Reference, ...]
    prompts: tuple[str, ...]
    jobs: Mapping[tuple[str, str], Job]  # by the reference's name and the prompt; none for what cannot be read

    def run(self, quiet: bool = False) -> Report:
        """Make the cells that are not there yet, and write the index after each."""
        index = Index.read(self.out)
        index.keep_references(self.references)
        cells = self._cells()
        missing = [cell for cell in cells if not cell.error and not index.holds(cell)]
        if missing:
            self._make(missing, index, quiet)
        index.write([replace(index.known(cell), error=cell.error) for cell in cells])
        return self._report(cells, missing)

    def _cells(self) -> list[Cell]:
        shared = self.setting.identity(self._reads_words())
        return [self._cell(one, prompt, shared) for one in self.references for prompt in self.prompts]

    def _reads_words(self) -> bool:
        units = [unit for job in self.jobs.values() for unit in job.units]
        return any(unit.removes_content and unit.content_prompt.strip() for unit in units)

    def _cell(self, reference: Reference, prompt: str, shared: Mapping[str, str]) -> Cell:
        job = self.jobs.get((reference.name, prompt))
        if job is None:
            return Cell("", reference.name, prompt, error=reference.error)
        digest = job_hash(job, shared)
        stem = f"{slug(reference.name)}--{slug(prompt)}--{digest}"
        files = tuple(f"{stem}-{seed}.png" for seed in range(job.seed, job.seed + job.count))
        return Cell(digest, reference.name, prompt, files, picture=reference.picture_hash)

    def _make(self, missing: list[Cell], index: Index, quiet: bool) -> None:
        from tqdm import tqdm

        quiet_libraries(bars=not quiet)
        host = self.setting.open()
        alone = len(missing) == 1
        host.pipe.set_progress_bar_config(disable=quiet or not alone, leave=False)
        for cell in tqdm(missing, desc="cells", unit="cell", disable=quiet or alone, file=sys.stderr):
            started = time.monotonic()
            pictures = host.generate(self.jobs[cell.reference, cell.prompt])
            for name, picture in zip(cell.files, pictures):
                save_picture(picture, self.out / name)
            index.add(replace(cell, seconds=round(time.monotonic() - started, 2)))

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


def job_hash(job: Job, shared: Mapping[str, str]) -> str:
    """12 hex digits that change with anything a picture depends on."""
    told: dict[str, Any] = {name: getattr(job, name) for name in job.__dataclass_fields__ if name != "at_once"}
    for name in ("init", "control"):
        told[name] = content_hash(told[name]) if told[name] is not None else None
    told["units"] = [_described(unit.to_dict()) for unit in job.units]
    text = json.dumps([told, shared], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def _described(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "image": [read_picture(source).hash for source in fields["image"]]}


def save_picture(picture: Image.Image, path: Path) -> None:
    """A PNG with the picture's parameters in its text chunk, where the WebUI's PNG Info looks for them."""
    told = PngInfo()
    told.add_text("parameters", picture.info.get("parameters", ""))
    write_whole(path, lambda partial: picture.save(partial, "PNG", pnginfo=told))
