"""What diffusers calls a tensor → what a checkpoint file calls it: UNet, autoencoder and the larger text tower."""

from __future__ import annotations

import re

import torch
from torch import Tensor

State = dict[str, Tensor]

_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OPEN_CLIP = {
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
}
_SIDE = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_VAE_SIDE = re.compile(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|downsamplers|upsamplers)\.(\d+)\.(.+)")


def unet_name(name: str) -> str:
    """The sgm name of a tensor of diffusers' SDXL UNet."""
    found = _SIDE.fullmatch(name)
    if found is None:
        top = next(start for start in _UNET_TOP if name.startswith(f"{start}."))
        return _inside(f"{_UNET_TOP[top]}.{name[len(top) + 1 :]}")
    side, level, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{1 if level == 2 else 2}.{rest}"
    block = f"input_blocks.{3 * level + number + 1}" if side == "down" else f"output_blocks.{3 * level + number}"
    return _inside(f"{block}.{int(kind == 'attentions')}.{rest}")


def _inside(name: str) -> str:
    """A residual layer's parts by sgm's names."""
    for part, theirs in _RESIDUAL.items():
        if re.search(rf"\.\d+\.{part}\.(weight|bias)$", name) and "transformer_blocks" not in name:
            return name.replace(f".{part}.", f".{theirs}.")
    return name


def vae_name(name: str, levels: int = 4) -> str:
    """The ldm name of a tensor of diffusers' AutoencoderKL."""
    found = _VAE_SIDE.fullmatch(name)
    if found is None:
        return _vae_middle(name)
    half, level, kind, number, rest = found[1], int(found[2]), found[3], found[4], found[5]
    if half == "decoder":
        level = levels - 1 - level
    side = f"{half}.{'down' if half == 'encoder' else 'up'}.{level}"
    if kind != "resnets":
        return f"{side}.{kind.removesuffix('rs')}.{rest}"
    return f"{side}.block.{number}.{rest.replace('conv_shortcut', 'nin_shortcut')}"


def _vae_middle(name: str) -> str:
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
    for theirs, ours in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        name = name.replace(f"attn_1.{theirs}.", f"attn_1.{ours}.")
    return name


def vae_state(state: State) -> State:
    """An autoencoder's tensors in a checkpoint's form; its attention is made of 1×1 convolutions there."""
    named = {vae_name(name): tensor for name, tensor in state.items()}
    return {
        name: tensor[..., None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
        for name, tensor in named.items()
    }


def open_clip_state(state: State) -> State:
    """A text tower's tensors, by transformers' published names, in open_clip's form."""
    made = {
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "ln_final.weight": state["text_model.final_layer_norm.weight"],
        "ln_final.bias": state["text_model.final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "logit_scale": torch.tensor(4.6052),  # open_clip's ln 100; nothing reads it
    }
    layers = [name for name in state if name.startswith("text_model.encoder.layers.")]
    for name in layers:
        rest = name.removeprefix("text_model.encoder.layers.")
        for theirs, ours in _OPEN_CLIP.items():
            if f".{theirs}." in rest:
                made[f"transformer.resblocks.{rest.replace(theirs, ours)}"] = state[name]
    for number in sorted({int(name.split(".")[3]) for name in layers}):
        attention = f"text_model.encoder.layers.{number}.self_attn"
        for kind in ("weight", "bias"):
            parts = [state[f"{attention}.{which}_proj.{kind}"] for which in "qkv"]
            made[f"transformer.resblocks.{number}.attn.in_proj_{kind}"] = torch.cat(parts)
    return made
