"""The folder that live tests run the WebUI on: tiny models, this project as an extension, the tester's ControlNet."""

from __future__ import annotations

import base64
import io
import json
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from live_condition import USUAL, Condition
from PIL import Image
from tiny_extras import (
    write_tiny_controlnet,
    write_tiny_hypernetwork,
    write_tiny_lora,
    write_tiny_t2i_adapter,
    write_tiny_text_lora,
    write_tiny_vae,
)
from tiny_sdxl import (
    TinyCheckpoint,
    tiny_checkpoint,
    write_tiny_adapter,
    write_tiny_encoder,
    write_tiny_sdxl,
)

PROJECT = Path(__file__).resolve().parents[2]
ENCODER_HIDDEN, ENCODER_PROJECTED = 64, 256  # the second is the pooled text's width: content can be subtracted
OTHER = "tiny-other"  # checkpoint
OPTIONS = {
    "show_progress_type": "Approx cheap",  # the default fetches a file at the first picture
    "sd_model_checkpoint": "tiny-sdxl.safetensors",
    "sd_vae": "Automatic",  # said here so that a job's own choice ends with it
}


@dataclass(frozen=True)
class World:
    """The data folder (the WebUI's --data-dir) and what lies where in it."""

    folder: Path
    checkpoint: TinyCheckpoint
    other_checkpoint: TinyCheckpoint
    adapters: Path
    encoder: Path
    extensions: tuple[str, ...]  # names of the tester's that are linked

    @property
    def has_controlnet(self) -> bool:
        return self.has("*controlnet*")

    def has(self, pattern: str) -> bool:
        """Whether one of the linked extensions has such a name."""
        return any(fnmatch(name, pattern) for name in self.extensions)

    def adapter(self, name: str) -> Path:
        return self.adapters / f"{name}.safetensors"


def make_world(folder: Path, webui: Path, condition: Condition = USUAL) -> World:
    """Fill `folder`; nothing outside it is written."""
    models = folder / "models"
    if condition.models is None:
        _write_models(models)
    else:
        models.symlink_to(condition.models, target_is_directory=True)
    (folder / "ui-config.json").write_text("{}", encoding="utf-8")  # NegPiP reads it before the WebUI writes it
    (folder / "tmp").mkdir()  # Forge Neo's start scripts make it
    (folder / "config.json").write_text(json.dumps({**OPTIONS, **condition.options}), encoding="utf-8")
    checkpoints = models / "Stable-diffusion"
    return World(
        folder=folder,
        checkpoint=tiny_checkpoint(checkpoints),
        other_checkpoint=tiny_checkpoint(checkpoints, OTHER),
        adapters=models / "ControlNet",
        encoder=models / "clip_vision" / "tiny",
        extensions=_link_extensions(folder / "extensions", [webui / "extensions", *further_extensions()], condition),
    )


def _write_models(models: Path) -> None:
    checkpoints, adapters = models / "Stable-diffusion", models / "ControlNet"
    write_tiny_sdxl(checkpoints)
    write_tiny_sdxl(checkpoints, name=OTHER, seed=2)
    write_tiny_sdxl(checkpoints, name="tiny-short", seed=3, deep=2)  # of another family
    write_tiny_adapter(adapters / "tiny-base.safetensors", kind="base", encoder_width=ENCODER_PROJECTED)
    write_tiny_adapter(adapters / "tiny-plus.safetensors", kind="plus", encoder_width=ENCODER_HIDDEN, seed=1)
    write_tiny_encoder(models / "clip_vision" / "tiny", hidden_size=ENCODER_HIDDEN, projection_dim=ENCODER_PROJECTED)
    _write_extras(models)


def _write_extras(models: Path) -> None:
    write_tiny_lora(models / "Lora" / "tiny-lora.safetensors", block="output_blocks.1.1", layers=("to_q", "to_out_0"))
    write_tiny_text_lora(models / "Lora" / "tiny-text-lora.safetensors")
    write_tiny_hypernetwork(models / "hypernetworks" / "tiny-hypernetwork.pt")
    write_tiny_t2i_adapter(models / "ControlNet" / "t2i-adapter_xl_canny_tiny.safetensors")
    write_tiny_controlnet(models / "ControlNet" / "tiny-controlnet.safetensors")
    write_tiny_vae(models / "VAE" / "tiny-vae.safetensors", seed=5)


def further_extensions() -> list[Path]:
    """Folders with extensions besides the WebUI's own: WEBUI_EXTENSIONS, several as in PATH."""
    named = os.environ.get("WEBUI_EXTENSIONS", "").split(os.pathsep)
    return [Path(folder).expanduser().resolve() for folder in named if folder]


def _link_extensions(own: Path, folders: list[Path], condition: Condition) -> tuple[str, ...]:
    """Link this project, and what the folders have of the extensions that are wanted; tell their names."""
    own.mkdir(parents=True)
    (own / condition.own_name).symlink_to(PROJECT, target_is_directory=True)
    places = [(folder, pattern) for pattern in condition.extensions for folder in folders]
    found = [path for folder, pattern in places for path in sorted(folder.glob(pattern)) if path.is_dir()]
    for path in found:
        (own / path.name).symlink_to(path.resolve(), target_is_directory=True)
    return tuple(path.name for path in found)


def picture(seed: int = 0, size: tuple[int, int] = (300, 200)) -> Image.Image:
    """A smooth coloured picture that is another one for every seed."""
    colours = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def as_base64(image: Image.Image) -> str:
    """A picture as API clients send it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def from_base64(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def newest_picture(world: World) -> Path:
    """The file of the picture that txt2img made last."""
    return max((world.folder / "outputs" / "txt2img-images").rglob("*.png"), key=lambda path: path.stat().st_mtime_ns)


def same_pixels(one: Path, other: Path) -> bool:
    return np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
