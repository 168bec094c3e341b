"""A unit that was checked against what is installed and loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .core.blocks import Layer
from .core.checkpoint import AdapterInfo
from .core.clip_text import TextTowerInfo
from .core.clip_vision import EncoderInfo, Feature
from .core.pictures import Picture
from .core.units import PICTURE_FIELDS, StyleUnit


@dataclass(frozen=True, eq=False)
class UnitPlan:
    """A unit with everything it names found and checked; nothing is loaded yet."""

    number: int  # counted from 1
    unit: StyleUnit
    read: dict[str, tuple[Picture, ...]]  # by the names of PICTURE_FIELDS
    adapter: AdapterInfo
    encoder: EncoderInfo
    text_tower: TextTowerInfo | None  # that reads the content prompt; None: the checkpoint's own
    scales: dict[Layer, float]  # without zeros

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The references."""
        return self.read["image"]

    @property
    def all_pictures(self) -> tuple[Picture, ...]:
        """The references, and the pictures to remove and to avoid."""
        return tuple(picture for name in PICTURE_FIELDS for picture in self.read[name])

    @property
    def joint(self) -> Feature:
        """The encoder's feature that lies in one space with text."""
        return Feature("pooled", self.encoder.config["projection_dim"])

    @property
    def described(self) -> StyleUnit:
        """The unit with the adapter that was really chosen and its pictures by hash: what an infotext says."""
        hashes: dict[str, Any] = {name: tuple(picture.hash for picture in self.read[name]) for name in PICTURE_FIELDS}
        return replace(self.unit, adapter=self.adapter.name, **hashes)
