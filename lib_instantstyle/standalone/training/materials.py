"""Everything a training works with, found and opened: files first, then models, then the encoded data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...files.adapters import AdapterInfo, inspect_adapter
from ...files.image_encoders import EncoderInfo, Feature
from ...reference.names import sampled_content
from ...reference.pictures import SUFFIXES
from ...units.blocks import Layer, attention_layers
from ...units.errors import AdapterNotFoundError, InstantStyleError
from ..model_identity import content_identity, description_identity
from ..model_shapes import check_channels
from ..models import Checkpoint, Model, open_pipeline, quiet_libraries
from .adapter import LearningAdapter, new_adapter, new_projection, opened_adapter
from .batches import EncodedFolder, EncodedShards, ExampleSource
from .cache import Cache
from .captions import NONE
from .folder import Entry, FolderSamples, list_folder, one_picture
from .frozen_encoders import FrozenEncoders, Moments, feature_of, find_encoder
from .groups import Group, read_groups, trained_layers
from .lora import LearningLora, new_lora
from .notices import notices
from .settings import B_LORA, Settings
from .shards import ShardSamples, find_shards


@dataclass(frozen=True)
class Place:
    """Where a process computes, and which of all it is."""

    device: torch.device
    dtype: torch.dtype  # of the frozen networks
    process: int = 0
    processes: int = 1


@dataclass(frozen=True, eq=False)
class Files:
    """What lies on disk, looked at before any model is opened."""

    entries: list[Entry]  # of a folder, or else …
    shards: list[Path]
    encoder: EncoderInfo | None  # none for a B-LoRA
    feature: Feature | None
    init: AdapterInfo | None


# Settings on which the loss curve depends.
_SAME = (
    *("kind", "rank", "rate", "weight_decay", "warmup", "schedule", "clip", "noise_offset", "weighting"),
    *("drop_image", "drop_text", "drop_both", "size", "random_crop", "seed"),
)


@dataclass(frozen=True, eq=False)
class Materials:
    """What a training works with. The pipeline is frozen and on its device, the adapter learns."""

    settings: Settings  # with the size filled in
    files: Files
    pipe: Any
    modules: Mapping[Layer, Any]  # the UNet's attn2
    groups: tuple[Group, ...]
    adapter: LearningAdapter | LearningLora
    encoders: FrozenEncoders
    source: ExampleSource
    warnings: tuple[str, ...] = ()

    def identity(self, samples: int, processes: int) -> dict[str, Any]:
        """What the loss curve depends on, the same on every machine that has copies of the files.

        A checkpoint can be gone on from when all of it is the same.
        """
        settings, files = self.settings, self.files
        told: dict[str, Any] = {name: getattr(settings, name) for name in _SAME}
        base = base_of(settings)
        told["base"] = content_identity(settings.base)
        told["encoder"] = sampled_content(files.encoder.path) if files.encoder else ""
        told["base_config"] = description_identity(base) if isinstance(base, Checkpoint) else ""
        told["precision"] = str(self.pipe.unet.dtype).removeprefix("torch.")
        told["cache"] = settings.cache and not files.shards
        told["init"] = sampled_content(files.init.path) if files.init else ""
        told["tokens"] = settings.token_count
        told["blocks"] = list(settings.blocks)
        told["data"] = _hash(f"{entry.path.name}:{entry.captions}" for entry in files.entries)
        if files.shards:
            told["data"] = _hash(f"{shard.name}:{shard.stat().st_size}" for shard in files.shards)
            told["number of processes"] = processes
        told["samples per step (batch × processes × accumulate)"] = samples
        if settings.schedule != "constant":
            told["steps"] = settings.steps
        return told


def find_files(settings: Settings) -> Files:
    """Look at the data, the encoder and the adapter to go on from. Raises InstantStyleError for what cannot be used."""
    check_channels(base_of(settings))
    single = settings.data.is_file() and settings.data.suffix.lower() in SUFFIXES
    shards = [] if single else find_shards(settings.data)
    if not single and not shards and not settings.data.is_dir():
        raise InstantStyleError(
            "--data must be a picture, a folder of pictures, or shards (.tar, .tar.gz): a folder of them, one file, or "
            f"a pattern like data/*.tar; there is no {settings.data}. Check the path.",
            "data",
        )
    if not single and not shards and settings.out.resolve().is_relative_to(settings.data.resolve()):
        raise InstantStyleError(
            f"--out must not be inside --data, or its own pictures would be trained on; got {settings.out}.", "out"
        )
    entries = [one_picture(settings.data)] if single else [] if shards else list_folder(settings.data)
    if settings.encoder is None:
        return Files([_prompted(entry, settings.prompt) for entry in entries], shards, None, None, None)
    init = _inspected(settings.init) if settings.init else None
    encoder = find_encoder(settings.encoder)
    feature = feature_of(settings.kind, encoder)
    if init is not None:
        _check_init(init, settings, feature)
    return Files(entries, shards, encoder, feature, init)


def _prompted(entry: Entry, prompt: str) -> Entry:
    """A B-LoRA's picture: where it has no caption, the prompt stands for it."""
    return replace(entry, captions=(prompt,)) if entry.captions == NONE else entry


def open_materials(settings: Settings, place: Place, moments: Moments | None = None) -> Materials:
    """Open everything; `moments` stands in for the base's VAE.

    Raises InstantStyleError with the reason when something is missing or unfit.
    """
    files = find_files(settings)
    quiet_libraries(bars=False)
    pipe = open_frozen(settings, place)
    sized = settings if settings.size else replace(settings, size=pipe.unet.config.sample_size * pipe.vae_scale_factor)
    modules = attention_layers(pipe.unet)
    groups = read_groups(settings.blocks, tuple(modules))
    adapter = _learning(settings, files, pipe.unet, modules, trained_layers(groups))
    encoders = FrozenEncoders(pipe, files.encoder, files.feature, moments)
    source = _source(files, encoders, sized, place)
    told = notices(settings.data, files.entries, files.shards, encoders.count_tokens)
    return Materials(sized, files, pipe, modules, groups, adapter, encoders, source, tuple(told))


def base_of(settings: Settings) -> Model:
    """The base model, and of a checkpoint file what describes it."""
    path = Path(settings.base).expanduser()
    return Checkpoint(path, settings.base_config, "--base-config") if path.is_file() else settings.base


def open_frozen(settings: Settings, place: Place) -> Any:
    """The base model, with nothing that learns; its VAE is read and computes in float32, as SDXL's must."""
    pipe = open_pipeline(base_of(settings), place.device, place.dtype, exact_vae=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _source(files: Files, encoders: FrozenEncoders, settings: Settings, place: Place) -> ExampleSource:
    if files.shards:
        shards = ShardSamples(files.shards, settings.seed, place.process, place.processes)
        return EncodedShards(shards, encoders, settings)
    if settings.cache:
        return Cache(files.entries, encoders, settings)
    return EncodedFolder(FolderSamples(files.entries, settings.seed), encoders, settings)


def _learning(
    settings: Settings, files: Files, unet: Any, modules: Mapping[Layer, Any], trained: Sequence[Layer]
) -> LearningAdapter | LearningLora:
    if settings.kind == B_LORA:
        return new_lora(unet, trained, settings.rank, settings.seed)
    assert files.feature is not None
    assert settings.token_count is not None
    if files.init is not None:
        return opened_adapter(files.init, modules, trained)
    context = next(iter(modules.values())).to_k.weight.shape[1]
    projection = new_projection(files.feature, context, settings.token_count, settings.seed)
    return new_adapter(projection, modules, trained)


def _inspected(path: Path) -> AdapterInfo:
    if not path.expanduser().is_file():
        raise AdapterNotFoundError(f"There is no file {path}. Check the path.", "init")
    return inspect_adapter(path.expanduser())


def _check_init(init: AdapterInfo, settings: Settings, feature: Feature) -> None:
    if init.variant != settings.kind or init.feature != feature:
        raise InstantStyleError(
            f"{init.path.name} is a {init.variant} adapter that reads {init.feature.encoder_name}, {init.feature.kind} "
            f"and {init.feature.width} wide; this training is of kind {settings.kind} on features {feature.width} "
            "wide. Use the --kind and --encoder this adapter was trained with.",
            "init",
        )
    if settings.tokens not in (None, init.tokens):
        raise InstantStyleError(
            f"{init.path.name} makes {init.tokens} tokens, but --tokens is {settings.tokens}. Leave --tokens out.",
            "tokens",
        )


def _hash(parts: Any) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
