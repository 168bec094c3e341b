"""What a reference shows, how much of the content is left in it after removal, and what a result has of all that.

Needs a unit's adapter, its image encoder and a text tower; no UNet, and nothing of routing. Speaks to a Host only.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from ..files.image_encoders import EncoderInfo
from ..files.text_towers import TextTowerInfo
from ..units.errors import TextTowerNotFoundError, UnitError
from ..units.methods import ADAPTER
from ..units.phrases import plain_prompt
from ..units.unit import StyleUnit
from .content import cosines
from .embedding import Embedder
from .host import Host
from .patches import PatchHead, read_patch_head
from .pictures import Picture, read_picture
from .plans import ReferencePlan, plan_reference
from .removal import How, Leak, Reference, auto_scales, content_phrases, leaks, read_reference
from .vocabulary import best_words, vocabulary

KEPT_PICTURES = 64  # hashes that stay in memory while somebody moves sliders: decoding takes longer than all else
CHECKPOINT = "checkpoint"  # stands for the name of its own text tower

Progress = Callable[[float, str], None]  # share 0..1, what is being done; what it raises stops the work


@dataclass(frozen=True)
class Word:
    """A word of the vocabulary, and its similarity to the reference."""

    text: str
    score: float  # cosine, the mean over the pictures


@dataclass(frozen=True)
class Meter:
    """How much of the content is in the reference before and after removal."""

    phrases: tuple[Leak, ...]  # of the content prompt, then "picture 1" and so on
    auto_scale: float | None  # of the content that *auto* picks, the mean over the pictures; None without content


@dataclass(frozen=True)
class Parts:
    """The names of what reads a unit's reference."""

    adapter: str
    encoder: str
    text_tower: str | None  # None: there is none, and only pictures can be compared


@dataclass(frozen=True)
class Analysis:
    """What a reference shows."""

    words: tuple[Word, ...]  # best first
    meter: Meter
    parts: Parts


@dataclass(frozen=True)
class Result:
    """What a generated picture is similar to: cosines."""

    style: float  # the reference without the content, the mean over the pictures
    content: float | None  # the phrase of it that is removed and shows most, or else the picture; None without content
    prompt: float

    @property
    def described(self) -> str:
        """As it stands in an infotext."""
        content = [] if self.content is None else [f"content {self.content:.2f}"]
        return ", ".join([f"style {self.style:.2f}", *content, f"prompt {self.prompt:.2f}"])


class Analyst:
    """Answers about units; one for the life of a process, and for one thread at a time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._embedder = Embedder(host)  # anew for each question: it looks at each file once
        self._pictures: OrderedDict[str, Picture] = OrderedDict()
        self._head: tuple[str, PatchHead] | None = None  # the last one used, by its encoder's file and config

    def analyse(self, unit: StyleUnit, *, count: int = 24, progress: Progress | None = None) -> Analysis:
        """The best `count` words (0: the vocabulary is left alone) and the meter. Raises InstantStyleError."""
        found = self.analyse_until(lambda: False, unit, count=count, progress=progress)
        assert found is not None
        return found

    def analyse_until(
        self, until: Callable[[], bool], unit: StyleUnit, *, count: int = 24, progress: Progress | None = None
    ) -> Analysis | None:
        """As `analyse`, or None: reading the vocabulary for the first time takes a minute, and `until` said in between
        that it is time to pause. Whoever holds a lock lets others have it then, and asks again to go on.
        """
        tell = progress or (lambda share, doing: None)
        tell(0.0, "Reading the reference picture")
        self._embedder = Embedder(self._host)
        meter, parts = self._meter(unit), self.parts(unit)
        words = self._words(unit, count, tell, until) if count else ()
        if words is None:
            return None
        tell(1.0, "Done")
        return Analysis(words, meter, parts)

    def meter(self, unit: StyleUnit) -> Meter:
        """Once the pictures are encoded, milliseconds: only texts that are new are encoded. Raises InstantStyleError.

        The content counts whether or not the unit's method and strength remove any of it.
        """
        self._embedder = Embedder(self._host)
        return self._meter(unit)

    def _meter(self, unit: StyleUnit) -> Meter:
        by_auto = self._read(unit, "auto")
        asked = self._read(unit, "subtract") if unit.content_method == "subtract" else by_auto
        if asked.content is None or by_auto.content is None or not len(by_auto.content.embeds):
            return Meter((), None)
        told = leaks(asked, _names(unit), asked.content.embeds, asked.cleaned(How.of(unit)))
        return Meter(tuple(told), auto_scales(by_auto).mean().item())

    def read_ahead(self, units: Sequence[StyleUnit]) -> None:
        """Encode the references of many units with one adapter while the encoder is loaded. Raises
        InstantStyleError."""
        self._embedder = Embedder(self._host)
        plans = [self._plan(unit) for unit in units]
        wanted = [(view, plan.adapter.feature) for plan in plans for view in plan.views]
        if wanted:
            self._embedder.images(wanted, plans[0].encoder)

    def measure(self, unit: StyleUnit, result: Image.Image, prompt: str) -> Result:
        """What a picture made with the unit and the prompt is similar to; the encoder is let go. Raises
        InstantStyleError."""
        self._embedder = Embedder(self._host)
        plan = self._plan(replace(unit, negative_image=(), negative_noise=0.0))
        reference = self._reference(plan)
        seen = self._embedder.unkept_image(read_picture(result), plan.encoder, plan.joint)
        style = cosines(reference.joint(reference.cleaned()), seen).mean().item()
        asked = self._embedder.texts([plain_prompt(prompt)], self._tower(plan.encoder))
        content = None
        if reference.content is not None and len(reference.content.embeds):
            phrases = len(content_phrases(unit)) or len(reference.content.embeds)
            content = cosines(seen, reference.content.embeds[:phrases]).max().item()
        return Result(style, content, cosines(seen, asked).item())

    def parts(self, unit: StyleUnit) -> Parts:
        """The names of what reads the unit's reference; `checkpoint` is the checkpoint's own text tower."""
        plan = self._plan(unit)
        return Parts(plan.adapter.name, plan.encoder.path.stem, self._tower_name(plan.encoder))

    def _tower_name(self, encoder: EncoderInfo) -> str | None:
        try:
            tower = self._tower(encoder)
        except TextTowerNotFoundError:
            return None
        return tower.name if tower else CHECKPOINT

    def _words(self, unit: StyleUnit, count: int, tell: Progress, until: Callable[[], bool]) -> tuple[Word, ...] | None:
        reference = self._read(replace(unit, content_prompt="", content_image=()), "auto")
        words = vocabulary()

        def done(share: float) -> None:
            tell(0.1 + 0.9 * share, "Reading the vocabulary, once for this text encoder")

        embeds = self._embedder.word_list(words, self._tower(reference.encoder), done, until)
        if embeds is None:
            return None
        best = best_words(reference.joint(reference.cond), embeds, count)
        return tuple(Word(words[row], score) for row, score in best)

    def _read(self, unit: StyleUnit, method: str) -> Reference:
        """The unit's reference with all its content, as it goes by `method`."""
        whole = replace(unit, content_method=method, content_scale=1.0, negative_image=(), negative_noise=0.0)
        return self._reference(self._plan(whole))

    def _plan(self, unit: StyleUnit) -> ReferencePlan:
        if unit.method != ADAPTER:
            raise UnitError("must be adapter: only what an adapter reads of a picture can be looked at.", "method")
        return plan_reference(self._host, unit, self._host.files.adapter(unit.adapter), self._picture)

    def _reference(self, plan: ReferencePlan) -> Reference:
        reference = read_reference(plan, self._embedder)
        return replace(reference, kept_head=self._head_of(plan.encoder)) if reference.is_patches else reference

    def _head_of(self, encoder: EncoderInfo) -> PatchHead:
        name = self._embedder.encoder_name(encoder)
        if self._head is None or self._head[0] != name:
            self._head = name, read_patch_head(encoder)
        return self._head[1]

    def _tower(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        return self._host.text_tower(encoder)

    def _picture(self, source: str | Image.Image) -> Picture:
        """As `read_picture`, from memory where a text was read before."""
        if not isinstance(source, str):
            return read_picture(source)
        key = hashlib.sha256(source.encode("utf-8", "replace")).hexdigest()
        picture = self._pictures.pop(key) if key in self._pictures else read_picture(source)
        self._pictures[key] = picture
        while len(self._pictures) > KEPT_PICTURES:
            self._pictures.popitem(last=False)
        return picture


def _names(unit: StyleUnit) -> list[str]:
    """What the rows of the content are called, as the unit's method parts it."""
    phrases = [phrase.text for phrase in content_phrases(unit)]
    return phrases + [f"picture {number}" for number, _ in enumerate(unit.content_image, 1)]
