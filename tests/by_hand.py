"""Keys and values of a session, and the same by transformers and by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.unit import StyleUnit

from .tiny import picture, vision_model
from .tiny.clip import image_processor

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def attach(session: StyleSession, *units: StyleUnit) -> dict[int, tuple[Tensor, Tensor]]:
    """Attach; the first unit's keys and values by layer number."""
    session.attach(session.plan(units))
    numbers = {module: layer.index for layer, module in attention_layers(session.host.unet()).items()}
    return {numbers[one.attn2]: (one.units[0].key, one.units[0].value) for one in session._layers}


class World:
    """The tiny models, read by transformers and by hand."""

    def __init__(self, folder: Path, adapters: str = "adapters") -> None:
        self.encoder = vision_model()
        self.adapters = {path.stem: load_file(str(path)) for path in (folder / adapters).iterdir()}

    @torch.no_grad()
    def image_embeds(self, seed: int) -> Tensor:
        return self.encoder(self._pixels(seed)).image_embeds

    @torch.no_grad()
    def hidden(self, seed: int | None) -> Tensor:
        """Penultimate states of a picture, or of the mid-grey one."""
        pixels = torch.zeros(1, 3, 32, 32) if seed is None else self._pixels(seed)
        return self.encoder(pixels, output_hidden_states=True).hidden_states[-2]

    @torch.no_grad()
    def grey_embeds(self) -> Tensor:
        return self.encoder(torch.zeros(1, 3, 32, 32)).image_embeds

    @torch.no_grad()
    def embeds_of(self, *images: Image.Image) -> Tensor:
        """(n, width) of pictures."""
        return self.encoder(torch.cat(list(map(pixels_of, images)))).image_embeds

    def _pixels(self, seed: int) -> Tensor:
        return pixels_of(picture(seed))

    def tokens(self, embeds: Tensor) -> Tensor:
        """LayerNorm(Linear(e)) of the adapter `base`, four tokens for each row."""
        of = self.adapters["base"]
        wide = embeds @ of["image_proj.proj.weight"].T + of["image_proj.proj.bias"]
        norm = of["image_proj.norm.weight"], of["image_proj.norm.bias"]
        return torch.nn.functional.layer_norm(wide.unflatten(-1, (4, -1)), norm[0].shape, *norm)

    def key(self, tokens: Tensor, layer: int) -> Tensor:
        return tokens @ self.adapters["base"][f"ip_adapter.{2 * layer + 1}.to_k_ip.weight"].T


def pixels_of(image: Image.Image) -> Tensor:
    return image_processor(32)(images=image, return_tensors="pt").pixel_values
