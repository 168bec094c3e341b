"""The fields of a unit in four groups: where the style comes from, where it goes, what is removed from it, and when.

A group knows what its own fields mean together and raises UnitError where they contradict each other. A new field is
one row in its group; a new group is one more base of `StyleUnit`.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from .block_scales import BlockScales
from .curves import CONSTANT, Curve, CurveField
from .errors import UnitError
from .fields import MAX_PICTURES, Choice, Flag, Masks, Number, Numbers, Pictures, Text
from .methods import ADAPTER, METHODS
from .phrases import MAX_PHRASES, parse_phrases
from .routing import CUSTOM, LAYOUT_BLOCK, PRESETS
from .schedule import Window
from .spec import asked

AUTO_ADAPTER = "auto"
FUSIONS = ("add", "adain")
CROPS = ("center", "top", "bottom", "left", "right", "pad", "squash", "tiles")
COMBININGS = ("concat", "average", "norm_average")
KV_SCALINGS = ("v", "kv", "kv_penalty", "k_mean_v")
PASSES = ("both", "first", "hires")
PALETTE_STEPS = (0.5, 0.8)  # of the steps in which a reference acts
NO_REMOVAL = "off"
NEED_GUIDANCE = "needs a CFG scale above 1, or attention guidance."
MISSING = {  # what is said where a method lacks what it needs
    "image": "A reference needs a picture; none was given.",
    "lora": "The method lora needs the name of a LoRA; none was given.",
}
STRENGTHS = {"subtract": 0.5, "project": 0.5, "auto": 1.0, NO_REMOVAL: 0.5}  # of each removal method, if not given
CONTENT_METHODS = tuple(STRENGTHS)


@dataclass(frozen=True)
class Source:
    """Where the style comes from."""

    enabled: bool = asked(True, Flag(), "Use this reference", "Whether this reference takes part.")
    image: tuple[str | Image.Image, ...] = asked(
        (), Pictures(), "Reference picture", "The picture whose style is used; several pictures are read as one style."
    )
    crop: str = asked(
        "center",
        Choice(CROPS),
        "Crop",
        "Which part of a reference the image encoder sees, since it takes only squares. center, top, bottom, left, "
        "right: a square from there. pad: the whole picture with grey bars. squash: the whole picture, distorted to a "
        "square. tiles: the whole picture in two to six squares, whose embeddings are averaged.",
    )
    combine: str = asked(
        "concat",
        Choice(COMBININGS),
        "Combine",
        "How several pictures become one style. concat: all their tokens are used side by side. average: the mean of "
        "their embeddings. norm_average: the same, after normalising each feature.",
    )
    image_weights: tuple[float, ...] | None = asked(
        None,
        Numbers(0, 10, most=MAX_PICTURES),
        "Picture weights",
        "How much each of several pictures counts, for example 1, 0.5. If not given: all the same.",
    )
    image_mask: tuple[str | Image.Image, ...] = asked(
        (),
        Masks(optional=True),
        "Part that counts",
        "A mask for the reference: white where it counts, black where it is ignored. In a picture with transparency, "
        "the opaque part counts, so a cut-out can be its own mask. One for all pictures, or one for each.",
    )
    adapter: str = asked(
        AUTO_ADAPTER,
        Text(),
        "Adapter",
        "Name of the IP-Adapter file, without the extension; auto picks the best one installed.",
    )
    method: str = asked(
        ADAPTER,
        Choice(tuple(METHODS)),
        "Source",
        "Where the style comes from. " + " ".join(f"{one.name}: {one.told}." for one in METHODS.values()),
    )
    lora: str = asked(
        "", Text(), "LoRA", "For the method lora: name of a LoRA in the WebUI's LoRA folder, without the extension."
    )

    def check_source(self) -> None:
        needs = METHODS[self.method].needs
        if needs and not getattr(self, needs):
            raise UnitError(MISSING[needs], needs)
        masks = len(self.image_mask)
        if masks > 1 and masks != len(self.image):
            raise UnitError(
                f"There must be one mask, or one for each of the {len(self.image)} pictures; got {masks}.", "image_mask"
            )
        weights = self.image_weights
        if weights is not None and len(weights) != len(self.image):
            raise UnitError(
                f"There must be one weight for each of the {len(self.image)} pictures; got {len(weights)}.",
                "image_weights",
            )
        if weights is not None and not any(weights):
            raise UnitError(
                "Some picture must weigh more than 0; to turn the reference off, set its weight to 0.", "image_weights"
            )


@dataclass(frozen=True)
class Where:
    """Which layers see the reference, and how strongly."""

    preset: str = asked(
        "style",
        Choice(tuple(PRESETS)),
        "Preset",
        "Which cross-attention blocks see the reference. The precise presets need a CFG scale above 1, or attention "
        "guidance.",
    )
    weight: float = asked(1.0, Number(-1, 3), "Style weight", "How strongly the reference acts; 0 turns it off.")
    layout_weight: float | None = asked(
        None,
        Number(-1, 3, optional=True),
        "Layout weight",
        "Weight of the layout block in the preset style_and_layout. If not given: the style weight.",
    )
    blocks: tuple[tuple[str, float], ...] | None = asked(
        None,
        BlockScales(-1, 3),
        "Custom blocks",
        "For the preset custom: block addresses with scales. A block acts at scale × weight; the most specific "
        "address wins. The block numbers of ComfyUI and ControlNet work too.",
    )
    push_weight: float | None = asked(
        None,
        Number(0, 5, optional=True),
        "Push weight",
        "For the precise presets: how strongly guidance pushes away from the rest of the reference. If not given: 1 "
        "for style, 0.3 for layout.",
    )

    mask: tuple[str | Image.Image, ...] = asked(
        (),
        Masks(most=1, optional=True),
        "Region",
        "A mask for the result: the style acts where it is white, not where it is black, and partly where it is grey. "
        "In a picture with transparency, the style acts in the opaque part.",
    )
    leak_guard: bool = asked(
        False,
        Flag(),
        "Guard against content",
        "For the method swapped: guidance pushes away from the content of the reference (StyleKeeper). Needs a CFG "
        "scale above 1.",
    )
    palette: float | None = asked(
        None,
        Number(0, 1, optional=True),
        "Palette",
        "How far the picture takes over the reference's colours, without any model: the mean and deviation of each "
        "channel of the denoised latent, between half and four fifths of the reference's steps. If not given: 0, and 1 "
        "with the method palette.",
    )
    fusion: str = asked(
        "add",
        Choice(FUSIONS),
        "Fusion",
        "add: adds the reference's attention to the prompt's. adain: gives the prompt's attention the reference's "
        "mean and deviation instead, which is meant to follow the prompt more closely (StyleStudio).",
    )
    kv_scaling: str = asked(
        "v",
        Choice(KV_SCALINGS),
        "Weight acts on",
        "v: the values only, as usual. kv: the keys as well. kv_penalty: keys and values, less in shallow blocks. "
        "k_mean_v: keys and the mean of the values, for weights above 1.",
    )
    attention_guidance: float = asked(
        0.0,
        Number(0, 10),
        "Attention guidance",
        "Leads away, inside the attention, from the picture to avoid and from what the precise presets push away, "
        "whatever the CFG scale. For Turbo, Lightning and LCM checkpoints, which are used at a CFG scale of 1. 0: off.",
    )

    def check_where(self) -> None:
        if self.preset == CUSTOM and not self.blocks:
            raise UnitError("The preset custom needs blocks with scales; none were given.", "blocks")
        if self.push_weight is not None and not PRESETS[self.preset].pushes:
            precise = " and ".join(preset.name for preset in PRESETS.values() if preset.pushes)
            raise UnitError(f"Only {precise} take a push weight; the preset is {self.preset}.", "push_weight")
        if self.preset != CUSTOM and self.blocks is not None:
            raise UnitError(f"Only the preset custom takes blocks; the preset is {self.preset}.", "blocks")


@dataclass(frozen=True)
class Removal:
    """What the reference shows and the result should not."""

    content_prompt: str = asked(
        "", Text(), "Content to remove", "What to remove from the reference, in words: a rabbit, a forest."
    )
    content_scale: float | None = asked(
        None,
        Number(0, 2, optional=True),
        "Removal strength",
        "How much of the content is removed; 0 removes nothing. At 1, project removes all of it and auto just enough. "
        "If not given: 1 with auto, 0.5 with the other methods.",
    )
    content_method: str = asked(
        "subtract",
        Choice(CONTENT_METHODS),
        "Removal method",
        "subtract: the paper's method, embedding minus strength × text. project: removes only the component along each "
        "phrase. auto: removes just enough to make each phrase no more similar than unrelated text. off: removes "
        "nothing.",
    )
    content_renorm: bool = asked(
        False,
        Flag(),
        "Keep the embedding's original strength",
        "Scales the embedding back to the length it had before the removal.",
    )
    content_image: tuple[str | Image.Image, ...] = asked(
        (),
        Pictures(optional=True),
        "Picture to remove",
        "A picture of what to remove from the reference, with the same method and strength.",
    )
    negative_image: tuple[str | Image.Image, ...] = asked(
        (),
        Pictures(optional=True),
        "Picture to avoid",
        "A picture the result should move away from: the unconditional side sees it instead of nothing. It "
        f"{NEED_GUIDANCE}",
    )

    negative_noise: float = asked(
        0.0,
        Number(0, 1),
        "Noise to avoid",
        "How much of the reference's own pixels, in random order, the result should move away from: its colours "
        f"without its shapes. The style becomes weaker. It {NEED_GUIDANCE}",
    )

    @property
    def removal_strength(self) -> float:
        """content_scale, or its method's own where that is not given."""
        return STRENGTHS[self.content_method] if self.content_scale is None else self.content_scale

    @property
    def removes_content(self) -> bool:
        """Whether there is anything to remove from the reference."""
        named = bool(self.content_prompt.strip()) or bool(self.content_image)
        return named and self.removal_strength > 0 and self.content_method != NO_REMOVAL

    def check_removal(self) -> None:
        phrases = len(parse_phrases(self.content_prompt))
        if phrases > MAX_PHRASES:
            raise UnitError(
                f"Commas may separate at most {MAX_PHRASES} phrases; this prompt has {phrases}. "
                "Remove some, or join those that belong together.",
                "content_prompt",
            )


@dataclass(frozen=True)
class When:
    """In which part of sampling the reference acts."""

    start: float = asked(0.0, Number(0, 1), "Start", "Where in sampling the style starts, as a fraction of the steps.")
    end: float = asked(1.0, Number(0, 1), "End", "Where in sampling the style ends, as a fraction of the steps.")

    curve: str | tuple[tuple[float, float], ...] = asked(
        CONSTANT,
        CurveField(),
        "Curve",
        "How the weight changes over the steps: a name such as fade_in or ease_out, or points [share of the steps, "
        "factor] with straight lines between them.",
    )
    layout_curve: str | tuple[tuple[float, float], ...] | None = asked(
        None,
        CurveField(optional=True),
        "Layout curve",
        "The same for the layout block only. If not given: the curve above.",
    )
    passes: str = asked(
        "both",
        Choice(PASSES),
        "Passes",
        "both: in every sampling pass. first: not in the hires pass. hires: only in the hires pass.",
    )

    @property
    def window(self) -> Window:
        return Window(self.start, self.end)

    @property
    def palette_window(self) -> Window:
        """Where colours are taken over: half to four fifths of the window, as StyleKeeper (arXiv:2510.06827) does."""
        first, last = PALETTE_STEPS
        return Window(*(self.start + (self.end - self.start) * share for share in (first, last)))

    def curve_in(self, block: str) -> Curve:
        """The factor on the weight in a block, from step to step."""
        own = self.layout_curve if block == LAYOUT_BLOCK else None
        return Curve.of(self.curve if own is None else own)

    def acts_in(self, *, hires: bool) -> bool:
        """Whether the reference acts in the hires pass, or in the one before it."""
        return self.passes in ("both", "hires" if hires else "first")

    def check_when(self) -> None:
        if self.start >= self.end:
            raise UnitError(
                f"The start must be before the end; got start {self.start:g} and end {self.end:g}.", "start"
            )
