"""`analyze`: what a reference shows, in words, and how much of the content is left in it after the removal.

Single files given with --style are read together as one style; a folder is analysed picture by picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...reference.analysis import Analyst, Progress
from ...reference.analysis_json import DEFAULT_WORDS, MOST_WORDS, WORDS, as_json, read_request
from ...units.unit import StyleUnit
from ..analysis_host import ReadingHost
from ..models import Model
from .output import Report
from .references import Reference, open_picture, read_references
from .stylize import UNIT_OPTIONS, help_of_field, named_model

Request = tuple[StyleUnit, int]  # a unit, and how many words are wanted

CONTENT_OPTIONS = [option for option in UNIT_OPTIONS if option[1].startswith("content_")]


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("analyze", help="what does this reference show?", description=__doc__)
    given: dict[str, Any] = {"action": "append", "metavar": "FILE|DIR", "required": True}
    parser.add_argument("--style", type=Path, help="reference picture", **given)
    parser.add_argument("--adapter", help="IP-Adapter for SDXL; of several the best is taken", **given)
    parser.add_argument("--encoder", help="its image encoder; a full CLIP model reads the words, too", **given)
    parser.add_argument("--model", metavar="FILE|DIR|ID", help="SDXL model whose second text encoder reads the words")
    parser.add_argument(
        "--model-config", metavar="DIR|ID", help="what describes a checkpoint file, where not beside it"
    )
    for option, name, kind, value in CONTENT_OPTIONS:
        parser.add_argument(option, dest=name, type=kind, metavar=value, help=help_of_field(name))
    parser.add_argument("--content-image", type=Path, action="append", metavar="FILE", help="picture of what shall go")
    parser.add_argument("--words", type=int, default=DEFAULT_WORDS, metavar="N", help=f"at most {MOST_WORDS}; 0: none")
    parser.add_argument("--device", help="cuda, cuda:1, mps, cpu (default: the best here)")
    parser.add_argument("--json", action="store_true", help="answer as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run, smaller="Use --device cpu, or give fewer pictures.")


def run(options: argparse.Namespace) -> Report:
    """Analyse each reference. Raises InstantStyleError when something asked for cannot be honoured."""
    content = _content(options)
    asked = [(one, _request(one, content)) for one in read_references(options.style)]
    analyst = Analyst(ReadingHost(options.adapter, options.encoder, _model(options), device=options.device))
    with _progress(len(asked), options.quiet) as tell:
        tell(0.0, "Reading the reference pictures")
        analyst.read_ahead([request[0] for _, request in asked if request])
        found = [_analysed(analyst, *one, _shifted(tell, number)) for number, one in enumerate(asked)]
    text = "\n\n".join(map(described, found))
    return Report(text, {"references": found}, not any("error" in one for one in found))


def _model(options: argparse.Namespace) -> Model | None:
    return None if options.model is None else named_model(options)


def _content(options: argparse.Namespace) -> dict[str, Any]:
    """What all references are asked: a request's fields beside the pictures."""
    names = [name for _, name, *_ in CONTENT_OPTIONS]
    fields = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.content_image:
        fields["content_image"] = [open_picture(path).image for path in options.content_image]
    return {**fields, WORDS: options.words}


def _request(reference: Reference, content: dict[str, Any]) -> Request | None:
    """What is asked about a reference; None where it cannot be read."""
    if reference.error:
        return None
    return read_request({"image": [picture.image for picture in reference.pictures], **content})


def _analysed(analyst: Analyst, reference: Reference, request: Request | None, tell: Progress) -> dict[str, Any]:
    told = {"reference": reference.name, "files": [str(path) for path in reference.paths]}
    if request is None:
        return {**told, "error": reference.error}
    unit, count = request
    return {**told, **as_json(analyst.analyse(unit, count=count, progress=tell))}


def _shifted(tell: Progress, number: int) -> Progress:
    return lambda share, doing: tell(number + share, doing)


@contextmanager
def _progress(references: int, quiet: bool) -> Iterator[Progress]:
    """Hears how many references are done, in fractions, and shows it on stderr."""
    from tqdm import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=references, disable=quiet, leave=False, bar_format=form) as bar:

        def tell(done: float, doing: str) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.update(done - bar.n)

        yield tell


def described(found: dict[str, Any]) -> str:
    """What was found about one reference, for people."""
    head = f"{found['reference']} ({', '.join(found['files'])})"
    if "error" in found:
        return f"{head}\n  {found['error']}"
    tower = f"; words by {found['text_tower']}" if found["text_tower"] else ""
    lines = [f"  read by {found['adapter']}, {found['encoder']}{tower}", *_words(found)]
    lines += [f"  {one['text']}: {one['before']:.3f} before, {one['after']:.3f} after" for one in found["phrases"]]
    if found["auto_scale"] is not None:
        lines.append(f"  auto takes {found['auto_scale']:.2f} of it")
    return "\n".join([head, *lines])


def _words(found: dict[str, Any]) -> list[str]:
    words = ", ".join(f"{word['text']} {word['score']:.3f}" for word in found["words"])
    return [f"  shows: {words}"] if words else []
