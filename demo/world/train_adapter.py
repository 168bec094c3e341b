"""Trains the world's IP-Adapter with the project's own tool: python -m demo.world.train_adapter FOLDER [--steps N]

In each step one group of blocks acts: all of them, the style block, or style and layout block. Captions seldom say in
which style a picture is, and most do not say what it shows: a word tells all there is to tell of a subject here, where
a real picture has more to it than its caption. So what is left to the image prompt is style and, where blocks can carry
it, content. Latents are those the UNet was trained on, with the chessboard that the autoencoder's encoder cannot see.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_instantstyle.standalone.training import Settings
from lib_instantstyle.standalone.training import train as train_adapter

from . import packing, train_latents
from .assembly import ADAPTER, pipeline
from .clip import trained_towers
from .dataset import scenes
from .drawing import draw
from .scenes import Scene

SHOWN = 4000  # pictures
SAID_SHARE = {"subject": 0.15, "layout": 0.5, "palette": 0.1, "texture": 0.1}  # how often a caption tells each part
GROUPS = ("original=0.4", "style=0.4", "style_and_layout=0.2")


def write_pictures(folder: Path, shown: list[Scene]) -> Path:
    """The scenes as an image folder with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    lines = []
    for number, scene in enumerate(shown):
        name = f"{number:05}.png"
        draw(scene).save(folder / name)
        said = frozenset(part for part, share in SAID_SHARE.items() if rng.random() < share)
        lines.append(json.dumps({"file_name": name, "text": scene.caption(said)}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def settings(folder: Path, steps: int) -> Settings:
    """The training, its base and its data in the folder, written there where missing."""
    base, encoder, data = folder / "base", folder / "encoder", folder / "pictures"
    if not (data / "metadata.jsonl").exists():
        write_pictures(data, scenes(24000, 1)[:SHOWN])
    pipeline(compact=True).save_pretrained(base)
    trained_towers().save_encoder(encoder)
    return Settings(
        base=base, encoder=encoder, data=data, out=folder / "adapter", blocks=GROUPS, steps=steps, batch=32, rate=1e-3,
        warmup=50, schedule="cosine", clip=1.0, weighting="picture", save_every=500, cpu=True,
    )  # fmt: skip


@torch.no_grad()
def moments(cells: train_latents.Cells, pixels: Tensor) -> Tensor:
    """(n, 3, side, side) from −1 to 1 → (n, 2, 4, side / 8, side / 8) means, and deviations of nothing."""
    latents = cells.encode(pixels)
    return torch.stack([latents, torch.zeros_like(latents)], dim=1)


def pack_adapter(path: Path, packed: Path = ADAPTER) -> None:
    """Write a trained adapter as the file that ships."""
    packing.write({"adapter": {name: tensor.float() for name, tensor in load_file(path).items()}}, packed)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the world's adapter and write the packed weights that ship.")
    parser.add_argument("folder", type=Path, help="where pictures, base and adapter go")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    cells = train_latents.trained(options.folder)
    trained = train_adapter(settings(options.folder, options.steps), lambda pixels: moments(cells, pixels))
    pack_adapter(trained.adapter)


if __name__ == "__main__":
    main()
