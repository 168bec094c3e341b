"""Writes the world as the files that people have: python -m demo.world.export FOLDER

A checkpoint file with its config for the WebUI and its diffusers folder for the command line, an IP-Adapter, an image
encoder. With a WebUI's `models` folder as FOLDER they lie where the WebUI looks for them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import assembly, ldm_names, models, packing
from .clip import trained_towers
from .words import TOKENIZER

NAME = "instantstyle-world"
CONFIG = Path(__file__).with_name("sdxl.yaml")


@dataclass(frozen=True)
class WorldFiles:
    """Where the world's files lie."""

    checkpoint: Path
    adapter: Path
    encoder: Path  # folder


def write(folder: Path) -> WorldFiles:
    """Write everything under `folder`; what is there already is written anew."""
    checkpoints = folder / "Stable-diffusion"
    files = WorldFiles(
        checkpoints / f"{NAME}.safetensors",
        folder / "ControlNet" / f"ip-adapter_{NAME}.safetensors",
        folder / "clip_vision" / NAME,
    )
    pipe = assembly.pipeline()
    _save(_checkpoint(pipe), files.checkpoint)
    text_tower = checkpoints / f"{NAME}-text"
    pipe.text_encoder.config.save_pretrained(text_tower)
    _copy_tokenizer(text_tower)
    files.checkpoint.with_suffix(".yaml").write_text(_config(text_tower.resolve()), encoding="utf-8")
    _describe(pipe, files.checkpoint.with_suffix(""))
    write_adapter(files.adapter)
    files.encoder.mkdir(parents=True, exist_ok=True)
    trained_towers().save_encoder(files.encoder)
    return files


def write_adapter(path: Path, *, compact: bool = False) -> Path:
    """Write the IP-Adapter in the published format, for all seventy layers or for the compact UNet's."""
    state = packing.read(assembly.ADAPTER)["adapter"]
    _save(state if compact else assembly.spread_adapter(state), path)
    return path


def _checkpoint(pipe: assembly.StableDiffusionXLPipeline) -> dict[str, Tensor]:
    parts = {
        "model.diffusion_model.": {ldm_names.unet_name(k): v for k, v in pipe.unet.state_dict().items()},
        "first_stage_model.": ldm_names.vae_state(pipe.vae.state_dict()),
        "conditioner.embedders.0.transformer.": packing.text_state(pipe.text_encoder),
        "conditioner.embedders.1.model.": ldm_names.open_clip_state(packing.text_state(pipe.text_encoder_2)),
    }
    return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}


def _config(text_tower: Path) -> str:
    narrow = models.UNET_WIDTHS[0]
    return Template(CONFIG.read_text("utf-8")).substitute(
        text_tower=json.dumps(str(text_tower)),
        context_width=models.CLIP_WIDTH + models.OPEN_CLIP_WIDTH,
        vector_width=models.OPEN_CLIP_WIDTH + 6 * models.SIZE_WIDTH,
        width=narrow,
        multiples=[width // narrow for width in models.UNET_WIDTHS],
        depths=[1, *models.DEPTHS],  # the first is never used
        head_width=models.HEAD_WIDTH,
        scale=models.VAE_SCALE,
        open_clip_arch=models.OPEN_CLIP_ARCH,
        vae_width=models.VAE_WIDTHS[0],
        vae_blocks=models.VAE_BLOCKS,
        vae_multiples=[width // models.VAE_WIDTHS[0] for width in models.VAE_WIDTHS],
    )


def _describe(pipe: assembly.StableDiffusionXLPipeline, folder: Path) -> None:
    """Write the configurations and tokenizers that a diffusers folder has, without the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    pipe.save_config(folder)
    for name in ("unet", "vae", "scheduler"):
        getattr(pipe, name).save_config(folder / name)
    for name in ("text_encoder", "text_encoder_2"):
        getattr(pipe, name).config.save_pretrained(folder / name)
    for name in ("tokenizer", "tokenizer_2"):
        _copy_tokenizer(folder / name)


def _copy_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in TOKENIZER.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(halves, path, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the world's checkpoint, adapter and image encoder.")
    parser.add_argument("folder", type=Path, help="a WebUI's models folder, or any other")
    files = write(parser.parse_args().folder)
    for path in (files.checkpoint, files.adapter, files.encoder):
        print(path)


if __name__ == "__main__":
    main()
