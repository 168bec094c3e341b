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
    mask: Picture | None = None  # white where the picture counts
    noise: bool = False  # its pixels in random order, in place of all this

    @property
    def name(self) -> str:
        """Changes with whatever is seen; of the whole picture with the centre crop it is the picture's own hash."""
        if self.noise:
            return f"{self.picture.hash}.noise"
        crop = "" if self.crop == CENTER else f".{self.crop}"
        return f"{self.picture.hash}{crop}{f'.{self.mask.hash}' if self.mask else ''}"

    @property
    def seed(self) -> int:
        """Of the order of a noise's pixels: a picture has always the same."""
        return int(self.picture.hash[:8], 16)

    @property
    def image(self) -> Image.Image:
        """The picture's pixels."""
        return self.picture.image

    @property
    def counts(self) -> Image.Image | None:
        """The mask's pixels."""
        return self.mask.image if self.mask else None
