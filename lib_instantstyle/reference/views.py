"""A picture as the image encoder is to see it: which part, and fitted how."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from ..files.preprocessing import CENTER
from .pictures import Picture


@dataclass(frozen=True, eq=False)
class View:
    """One picture and how it is fitted into the encoder's square, by a name of `files.preprocessing`."""

    picture: Picture
    crop: str = CENTER

    @property
    def name(self) -> str:
        """Changes with whatever is seen: letters and digits; with the centre crop, the picture's own hash."""
        return self.picture.hash if self.crop == CENTER else f"{self.picture.hash}.{self.crop}"

    @property
    def image(self) -> Image.Image:
        """The picture's pixels."""
        return self.picture.image
