"""The frozen networks that turn pictures and captions into what the UNet eats."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...files.image_encoders import EncoderInfo, Feature, ImageEncoder, inspect_encoder
from ...files.installed import ModelFiles
from ...units.errors import EncoderNotFoundError

ONE_MODEL = ("model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model")  # in formats side by side
KEPT_CAPTIONS = 512  # whose contexts stay in memory when captions are encoded as they come
FEATURES = {"base": ("pooled", "projection_dim"), "plus": ("hidden", "hidden_size")}


def find_encoder(path: Path) -> EncoderInfo:
    """The image encoder in a file or folder, of several formats the first. Raises EncoderNotFoundError for others."""
    path = path.expanduser()
    if path.is_file():
        return inspect_encoder(path)
    found = _told_apart(ModelFiles(lambda: [], lambda: [path]).encoders.usable() if path.is_dir() else [])
    if len(found) != 1:
        listed = ", ".join(str(one.path) for one in found) or "none"
        raise EncoderNotFoundError(
            f"--encoder must name one CLIP image encoder, a file or its folder; {path} contains: {listed}.",
            "encoder",
        )
    return found[0]


def _told_apart(found: Sequence[EncoderInfo]) -> list[EncoderInfo]:
    """Without the other formats of an encoder: of one folder and one size, by the names one is published under."""
    first: dict[object, EncoderInfo] = {}
    for info in found:
        size = repr(sorted({"layer_norm_eps": 1e-5, **info.config}.items()))  # the default, which not all files tell
        published = info.path.name.split(".")[0] in ONE_MODEL
        first.setdefault((info.path.parent, size) if published else info.path, info)
    return list(first.values())


def feature_of(kind: str, encoder: EncoderInfo) -> Feature:
    """What an adapter of that kind reads of that encoder."""
    name, width = FEATURES[kind]
    return Feature("pooled" if name == "pooled" else "hidden", encoder.config[width])


Moments = Callable[[Tensor], Tensor]  # (n, 3, size, size) pixels in −1…1 → (n, 2, c, h, w) mean and deviation


class FrozenEncoders:
    """VAE, image encoder and text towers. All answers are float32 on the CPU."""

    def __init__(
        self, pipe: Any, encoder: EncoderInfo | None, feature: Feature | None, moments: Moments | None = None
    ) -> None:
        """`moments` answers in place of the pipeline's VAE. Without an encoder, a picture's feature is a zero."""
        self.pipe, self.info, self.feature = pipe, encoder, feature
        self._moments = moments
        self._encoder: ImageEncoder | None = None
        self._no_picture: Tensor | None = None
        self._contexts: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """(n, 3, size, size) in −1…1 → (n, 2, c, h, w): mean and deviation of the VAE's posterior.

        One picture after another: in float32 the VAE takes gigabytes for each of 1024 pixels.
        """
        if self._moments is not None:
            return self._moments(pixels)
        return torch.cat([self._moments_of(one) for one in pixels.split(1)])

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures → (n, width) or (n, patches + 1, width)."""
        if self.feature is None:
            return torch.zeros(len(images), 1)
        return self._loaded().encode_all(images, self.feature)

    def no_picture(self) -> Tensor:
        """The feature of a dropped image prompt: zeros, or for patches those of the mid-grey picture."""
        if self.feature is None:
            return torch.zeros(1)
        if self._no_picture is None:
            pooled = self.feature.kind == "pooled"
            found = torch.zeros(1, self.feature.width) if pooled else self._loaded().encode_grey(self.feature)
            self._no_picture = found[0]
        return self._no_picture

    @torch.no_grad()
    def contexts(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(n, tokens, cross_attention_dim) and (n, width), each caption encoded once."""
        unknown = [caption for caption in dict.fromkeys(captions) if caption not in self._contexts]
        if unknown:
            self._contexts.update(zip(unknown, self._read(unknown)))
        for caption in captions:
            self._contexts.move_to_end(caption)
        found = [self._contexts[caption] for caption in captions]
        while len(self._contexts) > KEPT_CAPTIONS:
            self._contexts.popitem(last=False)
        return torch.stack([context for context, _ in found]), torch.stack([pooled for _, pooled in found])

    def count_tokens(self, text: str) -> int:
        """How many tokens CLIP makes of a text, start and end included."""
        return len(self.pipe.tokenizer_2(text, truncation=False, verbose=False).input_ids)

    def let_encoder_go(self) -> None:
        """Forget the image encoder; it is loaded again when it is needed."""
        self._encoder = None

    def _moments_of(self, pixels: Tensor) -> Tensor:
        vae = self.pipe.vae
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        return torch.stack([posterior.mean, posterior.std], dim=1).float().cpu()

    def _read(self, captions: list[str]) -> list[tuple[Tensor, Tensor]]:
        contexts, _, pooled, _ = self.pipe.encode_prompt(
            captions, device=self.pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return list(zip(contexts.float().cpu().unbind(), pooled.float().cpu().unbind()))

    def _loaded(self) -> ImageEncoder:
        assert self.info is not None
        if self._encoder is None:
            device = self.pipe.device
            half = device.type == "cuda" and self.pipe.unet.dtype != torch.float32
            self._encoder = ImageEncoder(self.info, device, torch.float16 if half else torch.float32)
        return self._encoder
