"""The folder that live tests run the WebUI on: tiny models, this project as an extension, the tester's ControlNet."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_sdxl import TinyCheckpoint, write_tiny_adapter, write_tiny_encoder, write_tiny_lora, write_tiny_sdxl

PROJECT = Path(__file__).resolve().parents[2]
ENCODER_HIDDEN, ENCODER_PROJECTED = 64, 256  # the second is the pooled text's width: content can be subtracted
OPTIONS = {
    "show_progress_type": "Approx cheap",  # the default fetches a file at the first picture
    "sd_model_checkpoint": "tiny-sdxl.safetensors",
}


@dataclass(frozen=True)
class World:
    """The data folder (the WebUI's --data-dir) and what lies where in it."""

    folder: Path
    checkpoint: TinyCheckpoint
    other_checkpoint: TinyCheckpoint
    adapters: Path
    encoder: Path
    has_controlnet: bool

    def adapter(self, name: str) -> Path:
        return self.adapters / f"{name}.safetensors"


def make_world(folder: Path, webui: Path) -> World:
    """Fill `folder`; nothing outside it is written."""
    models = folder / "models"
    checkpoints, adapters, encoder = models / "Stable-diffusion", models / "ControlNet", models / "clip_vision" / "tiny"
    write_tiny_adapter(adapters / "tiny-base.safetensors", kind="base", encoder_width=ENCODER_PROJECTED)
    write_tiny_adapter(adapters / "tiny-plus.safetensors", kind="plus", encoder_width=ENCODER_HIDDEN, seed=1)
    write_tiny_encoder(encoder, hidden_size=ENCODER_HIDDEN, projection_dim=ENCODER_PROJECTED)
    write_tiny_lora(models / "Lora" / "tiny-lora.safetensors", block="output_blocks.1.1", layers=("to_q", "to_out_0"))
    (folder / "config.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
    return World(
        folder=folder,
        checkpoint=write_tiny_sdxl(checkpoints),
        other_checkpoint=write_tiny_sdxl(checkpoints, name="tiny-other", seed=2),
        adapters=adapters,
        encoder=encoder,
        has_controlnet=_link_extensions(folder / "extensions", webui / "extensions"),
    )


def _link_extensions(own: Path, theirs: Path) -> bool:
    """Link this project, and the ControlNet extension if the WebUI has it; tell whether it has."""
    own.mkdir(parents=True)
    (own / "sd-webui-instantstyle").symlink_to(PROJECT, target_is_directory=True)
    found = next((path for path in sorted(theirs.glob("*controlnet*")) if path.is_dir()), None)
    if found is not None:
        (own / found.name).symlink_to(found.resolve(), target_is_directory=True)
    return found is not None


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
