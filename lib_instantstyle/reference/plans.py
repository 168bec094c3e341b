"""A unit that was checked against what is installed and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from PIL import Image
from torch import Tensor

from ..files.adapters import AdapterInfo
from ..files.image_encoders import EncoderInfo, Feature
from ..files.loras import Lora, LoraInfo, Target
from ..files.text_towers import TextTowerInfo
from ..units.blocks import Layer
from ..units.errors import PictureError, UnitError, placed
from ..units.unit import MASK_FIELDS, PICTURE_FIELDS, StyleUnit
from .host import Host
from .latents import Latents
from .pictures import Picture, read_mask, read_picture
from .views import View

MAX_UNIT_PIXELS = 400_000_000  # 1.2 GB once decoded: a few kilobytes of a payload may hold a hundred million pixels

Reader = Callable[["str | Image.Image"], Picture]


@dataclass(frozen=True, eq=False)
class ReferencePlan:
    """What it takes to read a unit's pictures and words, found and checked; nothing is loaded yet."""

    unit: StyleUnit
    read: Mapping[str, tuple[Picture, ...]]  # by the names of PICTURE_FIELDS
    adapter: AdapterInfo
    encoder: EncoderInfo
    text_tower: TextTowerInfo | None  # that reads the content prompt; None: the checkpoint's own

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The references."""
        return self.read["image"]

    @property
    def views(self) -> tuple[View, ...]:
        """The references as the encoder is to see them."""
        return tuple(View(picture, self.unit.crop, mask) for picture, mask in masked(self.read))

    @property
    def all_pictures(self) -> tuple[Picture, ...]:
        """The references, the pictures to remove and to avoid, and the masks."""
        return all_of(self.read)

    def let_go(self) -> None:
        """Keep hashes instead of pixels: what is known by its hash need not be decoded again."""
        for picture in self.all_pictures:
            picture.let_go()

    @property
    def joint(self) -> Feature:
        """The encoder's feature that lies in one space with text."""
        return Feature("pooled", self.encoder.config["projection_dim"])

    @property
    def described(self) -> StyleUnit:
        """The unit with the adapter that was really chosen and its pictures by hash: what an infotext says."""
        return replace(self.unit, adapter=self.adapter.name, **hashes_of(self.read))


@dataclass(frozen=True, eq=False)
class UnitPlan(ReferencePlan):
    """A unit with everything it names found and checked, and where it acts; nothing is loaded yet."""

    number: int  # counted from 1
    scales: dict[Layer, float]  # without zeros
    pushes: dict[Layer, float]  # layers in which guidance pushes away, likewise
    latents: Latents = field(default_factory=Latents)

    @property
    def acts(self) -> bool:
        """Whether it does anything to a picture."""
        return bool(self.scales) or self.unit.palette_share > 0


@dataclass(frozen=True, eq=False)
class LoraPlan:
    """A unit whose style comes from a LoRA, found and checked. Its pairs are read with the first sampling pass."""

    unit: StyleUnit
    lora: LoraInfo
    number: int  # counted from 1
    scales: dict[Target, float]  # of the pairs that act, without zeros
    _read: dict[Target, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def acts(self) -> bool:
        """Whether it does anything to a picture."""
        return bool(self.scales)

    @property
    def all_pictures(self) -> tuple[Picture, ...]:
        """None: the style is in the file."""
        return ()

    def pairs(self) -> Mapping[Target, tuple[Tensor, Tensor]]:
        """down (rank, in) and up (out, rank) of what acts, float32; kept for the passes that follow.

        Raises CheckpointError.
        """
        if not self._read:
            file = Lora(self.lora)
            self._read.update({target: file.read(target) for target in self.scales})
        return self._read

    def let_go(self) -> None:
        """Forget what was read."""
        self._read.clear()

    @property
    def described(self) -> StyleUnit:
        """The unit with the LoRA as its file is called."""
        return replace(self.unit, lora=self.lora.name)


@dataclass(frozen=True, eq=False)
class ReferringPlan:
    """A unit whose reference is looked at by self-attention, found and checked; it needs no file but the checkpoint."""

    unit: StyleUnit
    picture: Picture | None  # None: the first one of each batch leads the others
    number: int  # counted from 1
    scales: dict[Layer, float]  # without zeros
    latents: Latents = field(default_factory=Latents)

    @property
    def acts(self) -> bool:
        """Whether it does anything to a picture."""
        return bool(self.scales) or self.unit.palette_share > 0

    @property
    def read(self) -> Mapping[str, tuple[Picture, ...]]:
        """Its picture, by the names of PICTURE_FIELDS."""
        return {**dict.fromkeys(PICTURE_FIELDS, ()), "image": self.all_pictures}

    @property
    def all_pictures(self) -> tuple[Picture, ...]:
        """The reference, if there is one."""
        return (self.picture,) if self.picture else ()

    def latent(self, host: Host, size: tuple[int, int]) -> Tensor:
        """(1, channels, height, width): the picture's latent at a size, which is its height and width; kept."""
        assert self.picture is not None
        with placed(unit=self.number, field="image"):
            return self.latents.of(host, self.picture, size)

    def let_go(self) -> None:
        """Keep neither pixels nor latents."""
        self.latents.let_go()
        for picture in self.all_pictures:
            picture.let_go()

    @property
    def described(self) -> StyleUnit:
        """The unit with its picture by hash."""
        return replace(self.unit, image=tuple(picture.hash for picture in self.all_pictures))


@dataclass(frozen=True, eq=False)
class PalettePlan:
    """A unit of which only the colours are taken over. It needs no file but the checkpoint."""

    unit: StyleUnit
    read: Mapping[str, tuple[Picture, ...]]  # by the names of PICTURE_FIELDS
    number: int  # counted from 1
    latents: Latents = field(default_factory=Latents)
    scales: Mapping[Layer, float] = field(default_factory=dict)  # none: no layer sees it

    @property
    def acts(self) -> bool:
        """Whether it does anything to a picture."""
        return self.unit.palette_share > 0

    @property
    def all_pictures(self) -> tuple[Picture, ...]:
        """The references and the masks."""
        return all_of(self.read)

    def let_go(self) -> None:
        """Keep neither pixels nor latents."""
        self.latents.let_go()
        for picture in self.all_pictures:
            picture.let_go()

    @property
    def described(self) -> StyleUnit:
        """The unit with its pictures by hash."""
        return replace(self.unit, **hashes_of(self.read))


Coloured = UnitPlan | ReferringPlan | PalettePlan  # plans with pictures whose colours may be taken over
Plan = Coloured | LoraPlan


def masked(read: Mapping[str, tuple[Picture, ...]]) -> tuple[tuple[Picture, Picture | None], ...]:
    """The references, each with the mask of the part that counts."""
    masks: tuple[Picture | None, ...] = read["image_mask"] or (None,)
    return tuple(zip(read["image"], masks * len(read["image"]) if len(masks) == 1 else masks))


def all_of(read: Mapping[str, tuple[Picture, ...]]) -> tuple[Picture, ...]:
    """Every picture of a unit, in the order of its fields."""
    return tuple(picture for name in PICTURE_FIELDS for picture in read[name])


def hashes_of(read: Mapping[str, tuple[Picture, ...]]) -> dict[str, Any]:
    """The picture fields of a unit with hashes in the place of pictures."""
    return {name: tuple(picture.hash for picture in read[name]) for name in PICTURE_FIELDS}


def plan_palette(number: int, unit: StyleUnit) -> PalettePlan:
    """A unit of the method palette. Raises PictureError naming the field."""
    return PalettePlan(unit, read_pictures(unit), number)


def plan_reference(host: Host, unit: StyleUnit, adapter: AdapterInfo, read: Reader = read_picture) -> ReferencePlan:
    """All that reading a unit's reference by `adapter` takes, whatever UNet is loaded; routing, weights and window do
    not matter.
    """
    unit.check_source()
    pictures = read_pictures(unit, read)
    encoder = host.files.encoder(adapter.feature)
    return ReferencePlan(unit, pictures, adapter, encoder, content_tower(host, unit, encoder))


def read_pictures(unit: StyleUnit, read: Reader = read_picture) -> dict[str, tuple[Picture, ...]]:
    """A unit's pictures by the names of their fields. Raises PictureError naming the field."""
    found: dict[str, list[Picture]] = {one: [] for one in PICTURE_FIELDS}
    pixels = 0
    for name, source in [(one, source) for one in PICTURE_FIELDS for source in getattr(unit, one)]:
        picture = _read(source, name, read_mask if name in MASK_FIELDS else read)
        pixels += prod(picture.size)
        if pixels > MAX_UNIT_PIXELS:
            raise PictureError(
                f"All pictures of a reference together may have at most {MAX_UNIT_PIXELS // 1_000_000} megapixels; "
                "these have more. Make them smaller, or use fewer.",
                name,
            )
        found[name].append(picture)
    return {one: tuple(pictures) for one, pictures in found.items()}


def _read(source: str | Image.Image, name: str, read: Reader) -> Picture:
    try:
        return read(source)
    except PictureError as error:
        error.field = name
        raise


def content_tower(host: Host, unit: StyleUnit, encoder: EncoderInfo) -> TextTowerInfo | None:
    """The file that reads the unit's content prompt; None when the checkpoint does, or there is nothing to read."""
    if not unit.removes_content or not unit.content_prompt.strip():
        return None
    with placed(field="content_prompt"):
        return host.text_tower(encoder)


def check_windows(plans: Sequence[Plan], passes: Sequence[int]) -> None:
    """Raise UnitError when a unit acts in no model call of any sampling pass.

    `passes`: the model calls of each; the second is the hires pass.
    """
    for plan in plans:
        own = [total for number, total in enumerate(passes) if plan.unit.acts_in(hires=number > 0)]
        if not own:
            raise UnitError(
                "This reference acts only in the hires pass, but this job has none. Turn on hires fix, or set Passes "
                "to both.",
                "passes",
                plan.number,
            )
        if not any(plan.unit.window.holds_a_step_of(total) for total in own):
            raise UnitError(
                f"No step falls between start {plan.unit.start:g} and end {plan.unit.end:g}: this job makes "
                f"{' + '.join(map(str, own))} model calls. Widen the range or use more steps.",
                "start",
                plan.number,
            )
        if plan.unit.palette_share and not any(plan.unit.palette_window.holds_a_step_of(total) for total in own):
            raise UnitError(
                "is taken over between half and four fifths of the steps in which the reference acts; none of the "
                f"job's {' + '.join(map(str, own))} model calls falls there. Use more steps.",
                "palette",
                plan.number,
            )
