"""What people put beside a checkpoint, at the tiny checkpoint's sizes: LoRAs, a hypernetwork, a T2I-Adapter, a VAE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tiny_shapes as unet
import tiny_towers as towers
import tiny_vae
import torch
from tiny_files import random_tensor, save_random
from tiny_shapes import Shapes, conv

RANK = 2
HINT_WIDTHS = (3, 16, 16, 32, 32, 96, 96, 256)  # of a ControlNet's own convolutions, until they reach the UNet's
CANNY_PIXELS = 16 * 16  # an SDXL T2I-Adapter takes in squares of 16 by 16 pixels, of one channel for canny


def write_tiny_lora(path: Path, *, block: str, layers: Sequence[str], seed: int = 0) -> None:
    """Write a LoRA for layers of all cross-attentions in one of the UNet's wide blocks."""
    prefix, width = f"lora_unet_{block.replace('.', '_')}_transformer_blocks", unet.WIDE
    names = [f"{prefix}_{depth}_attn2_{layer}" for depth in range(unet.DEEP) for layer in layers]
    save_random(_low_rank(names, width), path, seed, torch.float16)


def write_tiny_text_lora(path: Path, *, seed: int = 0) -> None:
    """Write a LoRA for the queries of all layers of the smaller text tower."""
    prefix = "lora_te1_text_model_encoder_layers"
    names = [f"{prefix}_{layer}_self_attn_q_proj" for layer in range(towers.CLIP_LAYERS)]
    save_random(_low_rank(names, unet.CLIP_WIDTH), path, seed, torch.float16)


def _low_rank(names: Sequence[str], width: int) -> Shapes:
    shapes: Shapes = {}
    for name in names:
        shapes |= {f"{name}.lora_down.weight": (RANK, width), f"{name}.lora_up.weight": (width, RANK)}
    return shapes


def write_tiny_hypernetwork(path: Path, *, seed: int = 0) -> None:
    """Write a hypernetwork of one linear layer for keys and one for values, made from the text of both towers."""
    generator = torch.Generator().manual_seed(seed)
    width = unet.CONTEXT_WIDTH
    layers = [
        {"linear.0.weight": random_tensor("w", (width, width), generator), "linear.0.bias": torch.zeros(width)}
        for _ in ("keys", "values")
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"layer_structure": [1, 1], "name": path.stem, width: layers}
    torch.save(saved, path, _use_new_zipfile_serialization=False)  # today's torch adds files that the WebUI refuses


def write_tiny_t2i_adapter(path: Path, *, seed: int = 0) -> None:
    """Write a T2I-Adapter for SDXL that reads canny edges."""
    save_random(_t2i_adapter(), path, seed, torch.float16)


def _t2i_adapter() -> Shapes:
    """Two residual blocks at each of four widths; the first one of the two middle levels widens."""
    widths = (unet.NARROW, unet.MEDIUM, unet.WIDE, unet.WIDE)
    shapes = conv("conv_in", unet.NARROW, CANNY_PIXELS)
    for number in range(2 * len(widths)):
        level, name = number // 2, f"body.{number}"
        if number % 2 == 0 and level in (1, 2):
            shapes |= conv(f"{name}.in_conv", widths[level], widths[level - 1], 1)
        shapes |= conv(f"{name}.block1", widths[level], widths[level]) | conv(
            f"{name}.block2", widths[level], widths[level], 1
        )
    return shapes


def write_tiny_controlnet(path: Path, *, seed: int = 0) -> None:
    """Write a ControlNet for SDXL, with its layers' names in the first implementation."""
    save_random(_controlnet(), path, seed, torch.float16)


def _controlnet() -> Shapes:
    """The UNet's encoder and middle, and a convolution for the picture and for each of their outputs."""
    own = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
    shapes = {name: shape for name, shape in unet.unet().items() if name.startswith(own)}
    steps = zip(HINT_WIDTHS, (*HINT_WIDTHS[1:], unet.NARROW))
    for number, (inner, outer) in enumerate(steps):
        shapes |= conv(f"input_hint_block.{2 * number}", outer, inner)
    for number, width in enumerate((*[unet.NARROW] * 4, *[unet.MEDIUM] * 3, *[unet.WIDE] * 2)):
        shapes |= conv(f"zero_convs.{number}.0", width, width, 1)
    return shapes | conv("middle_block_out.0", unet.WIDE, unet.WIDE, 1)


def write_tiny_vae(path: Path, *, seed: int) -> None:
    """Write a VAE as a file of its own."""
    save_random(tiny_vae.vae(), path, seed, torch.float16)
