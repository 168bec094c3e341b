"""Sheets of sample pictures: what the adapter does now, made by the very host that will use it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from ...files.whole_files import write_whole
from ...units.errors import PictureError
from ...units.methods import LORA
from ...units.unit import StyleUnit
from .. import Job, StandaloneHost
from .crops import RawSample, cut
from .groups import Group
from .lora import FILE
from .materials import Files, Materials
from .settings import B_LORA
from .shards import members

FOLDER = "samples"
REFERENCES = 3  # the first pictures of the data
HEAD = 14  # pixels above each column, for its name


def draw_sheet(materials: Materials, adapter: Path, step: int) -> Path:
    """A row for each of some references: the picture, then each prompt through each group of blocks."""
    settings, samples = materials.settings, first_samples(materials.files, REFERENCES)
    prompts = settings.sample_prompts or (samples[-1].captions[0],)
    columns = [(group, prompt) for group in materials.groups for prompt in prompts]
    side = settings.size or 0
    sheet = Image.new("RGB", (side * (1 + len(columns)), (HEAD + side) * len(samples)), "white")
    with vae_in_the_dtype_of_the_unet(materials.pipe):
        encoders = [materials.files.encoder.path] if materials.files.encoder else []
        host = StandaloneHost(materials.pipe, [adapter], encoders, cache=settings.out / "cache" / FOLDER)
        for row, sample in enumerate(samples):
            made = [_drawn(host, materials, sample, *column) for column in columns]
            names = ["reference", *(f"{group.name}: {prompt}" for group, prompt in columns)]
            _paste(sheet, row, side, zip(names, [_square(sample, side), *made]))
    path = settings.out / FOLDER / f"step-{step:07}.png"
    write_whole(path, lambda partial: sheet.save(partial, "PNG"))
    return path


def first_samples(files: Files, count: int) -> list[RawSample]:
    """The first pictures of the data that can be read."""
    folder = (_opened(entry.sample) for entry in files.entries)
    shards = (_opened(member.sample) for shard in files.shards for member in members(shard))
    found = []
    for sample in chain(folder, shards):
        if sample is not None:
            found.append(sample)
        if len(found) == count:
            break
    return found


def _opened(read: Any) -> RawSample | None:
    try:
        found: RawSample = read()
    except PictureError:
        return None
    return found


def _drawn(host: StandaloneHost, materials: Materials, sample: RawSample, group: Group, prompt: str) -> Image.Image:
    settings, side = materials.settings, materials.settings.size
    scales = {layer.names[0]: 1.0 for layer in group.layers}
    learned = {"method": LORA, "lora": Path(FILE).stem}
    source = learned if settings.kind == B_LORA else {"image": [sample.image]}
    unit = StyleUnit.from_dict({**source, "preset": "custom", "blocks": scales})
    numbers: dict[str, Any] = {"steps": settings.sample_steps, "guidance": settings.sample_guidance}
    return host.generate(Job(prompt, (unit,), width=side, height=side, seed=settings.seed, **numbers))[0]


def _square(sample: RawSample, side: int) -> Image.Image:
    pixels = cut(sample.image, side).pixels
    return Image.fromarray(((pixels.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy())


def _paste(sheet: Image.Image, row: int, side: int, named: Any) -> None:
    pen, top = ImageDraw.Draw(sheet), row * (HEAD + side)
    for column, (name, picture) in enumerate(named):
        pen.text((column * side + 2, top + 1), name[: max(side // 6, 1)], fill="black")
        sheet.paste(picture.resize((side, side)), (column * side, top + HEAD))


@contextmanager
def vae_in_the_dtype_of_the_unet(pipe: Any) -> Iterator[None]:
    """As a pipeline decodes; a copy, since its own would stay rounded."""
    own = pipe.vae
    if own.dtype != pipe.unet.dtype:
        pipe.vae = copy.deepcopy(own).to(pipe.unet.dtype)
    try:
        yield
    finally:
        pipe.vae = own
