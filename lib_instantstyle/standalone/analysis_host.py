"""What reads references without a pipeline: the files that were named, and a model's second text encoder.

Of a model its text encoder is all that is read: no UNet and no VAE, and diffusers is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ..files.image_encoders import EncoderInfo
from ..files.installed import ModelFiles
from ..files.text_towers import TextTowerInfo, Tokenizer, inspect_text_tower, tokenizer_beside
from ..reference.store import EmbedStore
from ..units.errors import IncompatibleModelError, TextTowerNotFoundError
from ..units.unit import StyleUnit
from .devices import pick_device
from .long_prompts import check_phrases
from .model_shapes import weights_in
from .models import SDXL_CONFIG, Checkpoint, Model, description_of, is_hub_id
from .named_files import NamedFiles, default_cache

Paths = Sequence[Path | str]


class FilesHost:
    """The questions of reference.host.Host that named files answer."""

    def __init__(self, adapters: Paths, encoders: Paths, cache: Path | None = None) -> None:
        """Adapters and encoders: files or folders. Raises InstantStyleError for what cannot be used."""
        self.files: ModelFiles = NamedFiles(adapters, encoders)
        self.embed_store = EmbedStore((cache or default_cache()) / "embeds")

    def latent_of(self, image: Image.Image, height: int, width: int) -> Tensor:
        raise IncompatibleModelError("No VAE was opened. Use StandaloneHost.")

    def alphas_cumprod(self) -> Tensor:
        raise IncompatibleModelError("No noise schedule was opened. Use StandaloneHost.")

    @contextmanager
    def room_for_encoder(self) -> Iterator[None]:
        try:
            yield
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


class ReadingHost(FilesHost):
    """Implements reference.host.Host for an Analyst, which asks for no UNet.

    A full CLIP model among the encoders reads the words; where there is none, the second text encoder of `model`.
    """

    def __init__(
        self,
        adapters: Paths,
        encoders: Paths,
        model: Model | None = None,
        *,
        device: str | None = None,
        cache: Path | None = None,
    ) -> None:
        """The model is looked at when a text tower is first asked for. Raises InstantStyleError."""
        super().__init__(adapters, encoders, cache)
        self._device = pick_device(device)
        self._model = model
        self._found: TextParts | None = None

    def unet(self) -> nn.Module:
        raise IncompatibleModelError("Reading a reference takes no UNet, so none was opened. Use StandaloneHost.")

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        return self._device, torch.float16 if self._device.type == "cuda" else torch.float32

    def text_tower(self, encoder: EncoderInfo) -> TextTowerInfo:
        try:
            in_a_file = self.files.text_tower(encoder, None)
        except TextTowerNotFoundError as error:
            return self._tower_of_the_model(encoder, error)
        assert in_a_file is not None  # only a checkpoint's own tower is none, and its width was not given
        return in_a_file

    def check_content(self, unit: StyleUnit) -> None:
        """Raise UnitError where a phrase of the content is longer than the text tower reads."""
        if unit.content_prompt.strip():
            tower = self.text_tower(self.files.encoder(self.files.adapter(unit.adapter).feature))
            if tokenize := tokenizer_beside(tower.path) or self.tokenizer():
                check_phrases(unit, tokenize)

    def tokenizer(self) -> Tokenizer | None:
        parts = self._text_parts()
        return tokenizer_beside(parts.tokenizer / "vocab.json") if parts else None

    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        raise IncompatibleModelError("Here a model's text encoder is read from its file, like any other.")

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        return None

    def _tower_of_the_model(self, encoder: EncoderInfo, missing: TextTowerNotFoundError) -> TextTowerInfo:
        parts = self._text_parts()
        if parts is None:
            raise TextTowerNotFoundError(
                "To find words for a reference, the text encoder that was trained with the image encoder "
                f"{encoder.path.name} is needed, but none was given. Name the full CLIP model with --encoder or, for "
                "ViT-bigG, any SDXL checkpoint with --model. None is needed without --content and with --words 0.",
                missing.field,
            ) from None
        tower = inspect_text_tower(parts.weights)
        if not tower.pairs_with(encoder):
            raise missing
        return tower

    def _text_parts(self) -> TextParts | None:
        if self._found is None and self._model is not None:
            self._found = text_parts(self._model)
        return self._found


@dataclass(frozen=True)
class TextParts:
    """Where a model's second text encoder lies."""

    weights: Path  # a checkpoint file, or the weights of a diffusers folder's part
    tokenizer: Path  # folder with vocab.json and merges.txt


def text_parts(model: Model) -> TextParts:
    """Of a checkpoint file, a folder or a Hub id; of the last only these parts are fetched.

    Raises IncompatibleModelError when they are not there.
    """
    source = model.path if isinstance(model, Checkpoint) else model
    path = Path(source).expanduser()
    if path.is_file():
        described = description_of(model if isinstance(model, Checkpoint) else Checkpoint(path))
        folder = Path(described) if Path(described).is_dir() else _fetched(described, ("tokenizer_2/*",))
        return TextParts(path, folder / "tokenizer_2")
    if path.is_dir():
        return _in_folder(path)
    if not is_hub_id(source):
        raise IncompatibleModelError(
            f"There is no file or folder {source}, and it is not a Hub id like {SDXL_CONFIG}. Check the path."
        )
    return _in_folder(_of_hub(str(source)))


def _in_folder(folder: Path) -> TextParts:
    if not (folder / "text_encoder_2").is_dir():
        raise IncompatibleModelError(
            f"{folder} has no text_encoder_2, so it is not an SDXL model. Give a checkpoint file or a diffusers folder."
        )
    return TextParts(weights_in(folder / "text_encoder_2"), folder / "tokenizer_2")


def _of_hub(repository: str) -> Path:
    """The folder of what was fetched; half-size files where the repository has them."""
    about = ("text_encoder_2/config.json", "tokenizer_2/*")
    folder = _fetched(repository, (*about, "text_encoder_2/model.fp16*.safetensors*"))
    if list((folder / "text_encoder_2").glob("*.safetensors")):
        return folder
    return _fetched(repository, (*about, "text_encoder_2/model*.safetensors*"))


def _fetched(repository: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except Exception as error:  # the Hub, its client and the network each have their own
        reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
        raise IncompatibleModelError(f"{repository} cannot be fetched from the Hub: {reason}") from error
