"""The picture sheet: a row for each reference and prompt, a column for each mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, HEAD, SIDE_TEXT = 160, 10, 56, 120  # pixels
PAPER, INK, FAINT = (255, 255, 255), (25, 25, 30), (120, 120, 128)


@dataclass(frozen=True)
class Row:
    """A prompt, the reference, and what came out of the modes, in the order of the columns."""

    prompt: str
    reference: Image.Image
    made: Sequence[Image.Image]


def sheet(columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """The rows under a line of heads."""
    heads = ["reference", *columns]
    width = SIDE_TEXT + len(heads) * (CELL + GAP) + GAP
    paper = Image.new("RGB", (width, HEAD + len(rows) * (CELL + GAP) + GAP), PAPER)
    pen = ImageDraw.Draw(paper)
    for number, head in enumerate(heads):
        _write(pen, head, (_left(number) + CELL // 2, HEAD - 8), CELL, anchor="md")
    for number, row in enumerate(rows):
        _draw_row(paper, pen, row, HEAD + GAP // 2 + number * (CELL + GAP))
    return paper


def _draw_row(paper: Image.Image, pen: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    _write(pen, f"“{row.prompt}”", (SIDE_TEXT - 8, top + CELL // 2), SIDE_TEXT - 16, anchor="rm")
    for number, picture in enumerate([row.reference, *row.made]):
        shown = picture.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS)
        paper.paste(shown, (_left(number), top))
        outline = INK if number == 0 else FAINT
        pen.rectangle([_left(number) - 1, top - 1, _left(number) + CELL, top + CELL], outline=outline)


def _left(column: int) -> int:
    return SIDE_TEXT + GAP // 2 + column * (CELL + GAP) + (GAP if column else 0) // 2


def _write(pen: ImageDraw.ImageDraw, text: str, at: tuple[int, int], room: int, anchor: str) -> None:
    """Text in as many lines as it takes."""
    font = ImageFont.load_default(15)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and pen.textlength(longer, font=font) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    align = "right" if anchor == "rm" else "center"
    pen.multiline_text(at, "\n".join(lines), fill=INK, font=font, anchor=anchor, align=align, spacing=3)
