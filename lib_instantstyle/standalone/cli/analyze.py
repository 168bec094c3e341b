"""List the words that best describe a reference, and show how much of the content is left after removal.

Single files given with --style are read together as one style; a folder is analysed picture by picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...reference.analysis import Analyst, Progress
from ...reference.analysis_json import DEFAULT_WORDS, MOST_WORDS, WORDS, as_json, read_request
from ...reference.pictures import Picture
from ...units.unit import StyleUnit
from ..analysis_host import ReadingHost
from ..models import Model
from .output import Report
from .references import STAND_IN, Style, find_styles, no_pictures, open_picture
from .stylize import UNIT_OPTIONS, help_of_field, named_model

AT_ONCE = 16  # styles whose pictures are in memory together, so that the encoder is loaded for all of them once
CONTENT_OPTIONS = [option for option in UNIT_OPTIONS if option[1].startswith("content_")]


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("analyze", help="show which words describe a reference", description=__doc__)
    given: dict[str, Any] = {"action": "append", "metavar": "FILE|DIR", "required": True}
    parser.add_argument("--style", type=Path, help="reference picture", **given)
    parser.add_argument("--adapter", help="IP-Adapter for SDXL; if several are given, the best is used", **given)
    parser.add_argument("--encoder", help="its image encoder; a full CLIP model also reads the words", **given)
    parser.add_argument("--model", metavar="FILE|DIR|ID", help="SDXL model whose second text encoder reads the words")
    parser.add_argument("--model-config", metavar="DIR|ID", help="configuration of a checkpoint file, if not beside it")
    for option, name, kind, value in CONTENT_OPTIONS:
        parser.add_argument(option, dest=name, type=kind, metavar=value, help=help_of_field(name))
    parser.add_argument("--content-image", type=Path, action="append", metavar="FILE", help="picture of what to remove")
    parser.add_argument(
        "--words",
        type=int,
        default=DEFAULT_WORDS,
        metavar="N",
        help=f"how many words to list, at most {MOST_WORDS}; 0: none",
    )
    parser.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: the best available)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run, smaller="Use --device cpu, or give fewer pictures.")


def run(options: argparse.Namespace) -> Report:
    """Analyse each reference. Raises InstantStyleError when something asked for cannot be honoured."""
    content = _content(options)
    styles = find_styles(options.style)
    unit, _ = read_request({"image": [STAND_IN], **content})  # what is wrong with it is told before anything is opened
    host = ReadingHost(options.adapter, options.encoder, _model(options), device=options.device)
    host.check_content(unit)
    analyst = Analyst(host)
    found: list[dict[str, Any]] = []
    with _progress(len(styles), options.quiet) as tell:
        for at in range(0, len(styles), AT_ONCE):
            found += _answers(analyst, styles[at : at + AT_ONCE], content, _shifted(tell, at))
    if all("error" in one for one in found):
        raise no_pictures(style.folder for style in styles)
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


def _answers(
    analyst: Analyst, styles: Sequence[Style], content: dict[str, Any], tell: Progress
) -> Iterator[dict[str, Any]]:
    """About each of some styles, which are in memory together while the encoder reads them."""
    tell(0.0, "Reading the reference pictures")
    read = [style.read() for style in styles]
    asked = [_request(pictures, content) for pictures, _ in read]
    analyst.read_ahead([request[0] for request in asked if request])
    for number, (style, request, (_, error)) in enumerate(zip(styles, asked, read)):
        told = {"reference": style.name, "files": [str(path) for path in style.paths]}
        if request is None:
            yield {**told, "error": error}
            continue
        unit, count = request
        yield {**told, **as_json(analyst.analyse(unit, count=count, progress=_shifted(tell, number)))}


def _request(pictures: Sequence[Picture], content: dict[str, Any]) -> tuple[StyleUnit, int] | None:
    """What is asked about a style, and how many words are wanted; None where it cannot be read."""
    return read_request({"image": [one.image for one in pictures], **content}) if pictures else None


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
        lines.append(f"  auto removes {found['auto_scale']:.2f} of it")
    return "\n".join([head, *lines])


def _words(found: dict[str, Any]) -> list[str]:
    words = ", ".join(f"{word['text']} {word['score']:.3f}" for word in found["words"])
    return [f"  shows: {words}"] if words else []
