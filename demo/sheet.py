"""Picture sheets: sections, each a row for every reference and a column for whatever is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, SIDE_TEXT = 136, 8, 110  # pixels
TITLE, HEAD = 44, 44  # pixels of a section's title and of its columns' heads
PAPER, INK, FAINT = (255, 255, 255), (25, 25, 30), (120, 120, 128)
SMALL, LARGE = 14, 18  # pixels of the letters


@dataclass(frozen=True)
class Row:
    """A label, the reference if there is one, and the pictures in the order of the columns."""

    label: str
    reference: Image.Image | None
    made: Sequence[Image.Image]


@dataclass(frozen=True)
class Section:
    """Rows under a line of heads; the references' column comes first and has its own."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Row]

    @property
    def height(self) -> int:
        """Pixels."""
        return (TITLE if self.title else 0) + HEAD + len(self.rows) * (CELL + GAP) + GAP

    @property
    def width(self) -> int:
        """Pixels."""
        return SIDE_TEXT + (len(self.heads) + self.refers) * (CELL + GAP) + 3 * GAP

    @property
    def refers(self) -> bool:
        """Whether any row has a reference."""
        return any(row.reference is not None for row in self.rows)


def sheet(sections: Sequence[Section]) -> Image.Image:
    """The sections one below the other."""
    size = max(one.width for one in sections), sum(one.height for one in sections) + GAP
    paper = Image.new("RGB", size, PAPER)
    pen, top = ImageDraw.Draw(paper), GAP
    for section in sections:
        _draw_section(paper, pen, section, top)
        top += section.height
    return paper


def _draw_section(paper: Image.Image, pen: ImageDraw.ImageDraw, section: Section, top: int) -> None:
    if section.title:
        pen.line([GAP, top + 2, paper.width - GAP, top + 2], fill=FAINT)
        pen.text((GAP, top + TITLE // 2 + 4), section.title, fill=INK, font=ImageFont.load_default(LARGE), anchor="lm")
        top += TITLE
    heads = ("reference", *section.heads) if section.refers else section.heads
    for number, head in enumerate(heads):
        _write(pen, head, (_left(number) + CELL // 2, top + HEAD - 6), CELL, anchor="md")
    for number, row in enumerate(section.rows):
        shown = [row.reference, *row.made] if section.refers else row.made
        _draw_row(paper, pen, row.label, shown, top + HEAD + number * (CELL + GAP))


def _draw_row(
    paper: Image.Image, pen: ImageDraw.ImageDraw, label: str, pictures: Sequence[Image.Image | None], top: int
) -> None:
    _write(pen, label, (SIDE_TEXT - 8, top + CELL // 2), SIDE_TEXT - 16, anchor="rm")
    for number, picture in enumerate(pictures):
        if picture is None:
            continue
        shown = picture.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS)
        paper.paste(shown, (_left(number), top))
        pen.rectangle([_left(number) - 1, top - 1, _left(number) + CELL, top + CELL], outline=FAINT)


def _left(column: int) -> int:
    return SIDE_TEXT + GAP + column * (CELL + GAP) + (GAP if column else 0)


def _write(pen: ImageDraw.ImageDraw, text: str, at: tuple[int, int], room: int, anchor: str) -> None:
    """Text in as many lines as it takes."""
    font = ImageFont.load_default(SMALL)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and pen.textlength(longer, font=font) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    align = "right" if anchor == "rm" else "center"
    pen.multiline_text(at, "\n".join(lines), fill=INK, font=font, anchor=anchor, align=align, spacing=3)
