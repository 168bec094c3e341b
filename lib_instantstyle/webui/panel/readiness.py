"""What the panel says about whether a style can be made now, in plain words, and what there is to download."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ...files.downloads import DOWNLOADS, Download, fetch
from ...files.image_encoders import EncoderInfo, Feature
from ...files.installed import ModelFiles, encoder_download
from ...units.blocks import attention_layers
from ...units.errors import InstantStyleError
from ...units.groups import AUTO_ADAPTER

MOST_REFUSED = 8  # files whose refusals are read out
FIRST_ADAPTER = DOWNLOADS["ip-adapter_sdxl.safetensors"]
FIRST_FEATURE = Feature("pooled", 1280)  # which it reads
FIRST_ENCODER = DOWNLOADS["CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors"]


@dataclass(frozen=True)
class Readiness:
    """What stands in the way, and the files that would remove it."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    downloads: tuple[Download, ...]

    def as_html(self, failure: str | None = None) -> str:
        """All of it, after what went wrong just now."""
        problems = [failure, *self.problems] if failure else self.problems
        return status_html(problems, self.notes)

    @property
    def button_label(self) -> str:
        return " and ".join(f"{one.file_name} ({one.gigabytes})" for one in self.downloads)


def status_html(problems: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Plain sentences, each a line; the first ones stand out."""
    lines = [_line("problem", text) for text in problems] + [_line("note", text) for text in notes]
    return f'<div class="instantstyle-status">{"".join(lines)}</div>'


def _line(kind: str, text: str) -> str:
    return f'<p class="instantstyle-{kind}">{with_links(html.escape(text))}</p>'


def with_links(escaped: str) -> str:
    """Escaped text in which the model pages it names can be clicked."""
    link = r'<a href="https://\1" target="_blank" rel="noopener">\1</a>'
    return re.sub(r"(?:https://)?(huggingface\.co/[\w./-]*\w)", link, escaped)


def readiness(
    files: ModelFiles, unet: nn.Module | None, text_width: int | None = None, *, without: Sequence[str] = ()
) -> Readiness:
    """Look at the installed files and, if one is loaded, at the checkpoint and the width of its pooled text."""
    problems, refused = _about_checkpoint(unet), _about_refused(files)
    try:
        adapter = files.adapter(AUTO_ADAPTER)
    except InstantStyleError as error:  # which names the folders that are missing
        return Readiness((*problems, error.message), (*without, *refused), _first_downloads(files))
    try:
        encoder = files.encoder(adapter.feature)
    except InstantStyleError as error:
        known = encoder_download(adapter.feature)
        return Readiness((*problems, error.message), refused, (known,) if known else ())
    ready = f"Auto uses {adapter.path.name} with the image encoder {encoder.path.parent.name}/{encoder.path.name}."
    able = () if problems else (ready, *_about_content(files, encoder, text_width))
    others, downloads = _about_other_adapters(files)
    lost = tuple(one for one in files.missing_folders() if not any(one in other for other in others))
    return Readiness(problems, (*able, *others, *lost, *refused), downloads)


def _about_refused(files: ModelFiles) -> tuple[str, ...]:
    """Why files that look like adapters cannot be used; of a folder full of pointers the first few."""
    refused = [error.message for error in files.adapters.unusable()]
    more = len(refused) - MOST_REFUSED
    rest = (f"{more} more adapter files cannot be used.",) if more > 0 else ()
    return (*refused[:MOST_REFUSED], *rest)


def _first_downloads(files: ModelFiles) -> tuple[Download, ...]:
    """What is needed to begin, without what is there."""
    try:
        files.encoder(FIRST_FEATURE)
    except InstantStyleError:
        return FIRST_ADAPTER, FIRST_ENCODER
    return (FIRST_ADAPTER,)


def _about_other_adapters(files: ModelFiles) -> tuple[tuple[str, ...], tuple[Download, ...]]:
    """The encoders that adapters lack which *auto* does not take, but somebody may choose."""
    notes: dict[str, Download | None] = {}
    for adapter in files.adapters.usable():
        try:
            files.encoder(adapter.feature)
        except InstantStyleError as error:
            notes[f"{adapter.path.name}: {error.message}"] = encoder_download(adapter.feature)
    return tuple(notes), tuple(dict.fromkeys(known for known in notes.values() if known))


def _about_content(files: ModelFiles, encoder: EncoderInfo, text_width: int | None) -> tuple[str, ...]:
    """Which file a content prompt would need, if it is not there."""
    if text_width is None:
        return ()
    try:
        files.text_tower(encoder, text_width)
    except InstantStyleError as error:
        return (error.message,)
    return ()


def _about_checkpoint(unet: nn.Module | None) -> tuple[str, ...]:
    if unet is None:
        return ()
    try:
        attention_layers(unet)
    except InstantStyleError as error:
        return (error.message,)
    except RuntimeError:  # its modules changed meanwhile: it is still being loaded
        return ()
    return ()


def download_all(
    downloads: tuple[Download, ...], folders: dict[str, Path], progress: Callable[[float, str], Any]
) -> None:
    """Fetch files into the folder for their kind. Raises DownloadError."""
    for download in downloads:
        fetch(download, folders[download.kind], progress)
