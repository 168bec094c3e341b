"""What the panel says about whether a style can be made now, in plain words, and what there is to download."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..core.blocks import attention_layers
from ..core.clip_vision import EncoderInfo
from ..core.errors import InstantStyleError
from ..core.units import AUTO_ADAPTER
from ..hosts.downloads import DOWNLOADS, Download, fetch
from ..hosts.model_files import ModelFiles, encoder_download

FIRST_ADAPTER = DOWNLOADS["ip-adapter_sdxl.safetensors"]
FIRST_ENCODER = DOWNLOADS["CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors"]


@dataclass(frozen=True)
class Readiness:
    """What stands in the way, and the files that would remove it."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    downloads: tuple[Download, ...]

    def as_html(self) -> str:
        lines = [_line("problem", text) for text in self.problems] + [_line("note", text) for text in self.notes]
        return f'<div class="instantstyle-status">{"".join(lines)}</div>'

    @property
    def button_label(self) -> str:
        return " and ".join(f"{one.file_name} ({one.gigabytes})" for one in self.downloads)


def _line(kind: str, text: str) -> str:
    return f'<p class="instantstyle-{kind}">{with_links(html.escape(text))}</p>'


def with_links(escaped: str) -> str:
    """Escaped text in which the model pages it names can be clicked."""
    link = r'<a href="https://\1" target="_blank" rel="noopener">\1</a>'
    return re.sub(r"(?:https://)?(huggingface\.co/[\w./-]*\w)", link, escaped)


def readiness(files: ModelFiles, unet: nn.Module | None, text_width: int | None = None) -> Readiness:
    """Look at the installed files and, if one is loaded, at the checkpoint and the width of its pooled text."""
    problems, notes = _about_checkpoint(unet), tuple(error.message for error in files.adapters.unusable())
    try:
        adapter = files.adapter(AUTO_ADAPTER)
    except InstantStyleError as error:
        return Readiness((*problems, error.message), notes, (FIRST_ADAPTER, FIRST_ENCODER))
    try:
        encoder = files.encoder(adapter.feature)
    except InstantStyleError as error:
        known = encoder_download(adapter.feature)
        return Readiness((*problems, error.message), notes, (known,) if known else ())
    ready = f"Auto uses {adapter.path.name} with the image encoder {encoder.path.parent.name}/{encoder.path.name}."
    able = () if problems else (ready, *_about_content(files, encoder, text_width))
    return Readiness(problems, (*able, *notes), ())


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
    return ()


def download_all(
    downloads: tuple[Download, ...], folders: dict[str, Path], progress: Callable[[float, str], Any]
) -> None:
    """Fetch files into the folder for their kind. Raises DownloadError."""
    for download in downloads:
        fetch(download, folders[download.kind], progress)
