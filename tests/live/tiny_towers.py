"""Shapes of everything CLIP in the tiny world: two text towers, a vision tower, and what an adapter makes of it."""

from __future__ import annotations

from tiny_shapes import CLIP_WIDTH, OPEN_CLIP_WIDTH, Shapes, linear, norm, stack, under

VOCABULARY, CONTEXT_LENGTH = 49408, 77
CLIP_LAYERS, CLIP_HEADS = 12, 4
OPEN_CLIP_ARCH, OPEN_CLIP_LAYERS = "ViT-S-32-alt", 10

ENCODER_LAYERS, ENCODER_HEADS = 3, 4
ENCODER_IMAGE_SIZE, ENCODER_PATCH_SIZE = 224, 32

BASE_TOKENS, PLUS_TOKENS = 4, 16
RESAMPLER_HEADS, RESAMPLER_LAYERS = 2, 2


def clip_text_tower() -> Shapes:
    shapes: Shapes = {
        "embeddings.token_embedding.weight": (VOCABULARY, CLIP_WIDTH),
        "embeddings.position_embedding.weight": (CONTEXT_LENGTH, CLIP_WIDTH),
    }
    layers = stack("encoder.layers", CLIP_LAYERS, _clip_layer(CLIP_WIDTH, 4 * CLIP_WIDTH))
    return shapes | layers | norm("final_layer_norm", CLIP_WIDTH)


def _clip_layer(width: int, inner: int) -> Shapes:
    layer = norm("layer_norm1", width) | norm("layer_norm2", width)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        layer |= linear(f"self_attn.{name}", width, width)
    return layer | linear("mlp.fc1", inner, width) | linear("mlp.fc2", width, inner)


def open_clip_text_tower() -> Shapes:
    width = OPEN_CLIP_WIDTH
    shapes: Shapes = {
        "token_embedding.weight": (VOCABULARY, width),
        "positional_embedding": (CONTEXT_LENGTH, width),
        "text_projection": (width, width),
        "logit_scale": (),
    }
    layers = stack("transformer.resblocks", OPEN_CLIP_LAYERS, _open_clip_layer(width))
    return shapes | layers | norm("ln_final", width)


def _open_clip_layer(width: int) -> Shapes:
    return (
        {"attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,)}
        | linear("attn.out_proj", width, width)
        | linear("mlp.c_fc", 4 * width, width)
        | linear("mlp.c_proj", width, 4 * width)
        | norm("ln_1", width)
        | norm("ln_2", width)
    )


def vision_tower(width: int, projected: int) -> Shapes:
    positions = 1 + (ENCODER_IMAGE_SIZE // ENCODER_PATCH_SIZE) ** 2
    patch = (width, 3, ENCODER_PATCH_SIZE, ENCODER_PATCH_SIZE)
    tower: Shapes = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": patch,
        "embeddings.position_embedding.weight": (positions, width),
    }
    tower |= norm("pre_layrnorm", width) | norm("post_layernorm", width)  # the first is spelled so in transformers
    tower |= stack("encoder.layers", ENCODER_LAYERS, _clip_layer(width, 2 * width))
    projection = linear("visual_projection", projected, width, bias=False)
    return under("vision_model.", tower) | projection


def linear_projection(encoder_width: int, context: int) -> Shapes:
    return linear("proj", BASE_TOKENS * context, encoder_width) | norm("norm", context)


def resampler(encoder_width: int, context: int) -> Shapes:
    width = 64 * RESAMPLER_HEADS
    shapes: Shapes = {"latents": (1, PLUS_TOKENS, width)}
    shapes |= linear("proj_in", width, encoder_width)
    shapes |= stack("layers", RESAMPLER_LAYERS, _resampler_layer(width))
    return shapes | linear("proj_out", context, width) | norm("norm_out", context)


def _resampler_layer(width: int) -> Shapes:
    return (
        norm("0.norm1", width)
        | norm("0.norm2", width)
        | linear("0.to_q", width, width, bias=False)
        | linear("0.to_kv", 2 * width, width, bias=False)
        | linear("0.to_out", width, width, bias=False)
        | norm("1.0", width)
        | linear("1.1", 4 * width, width, bias=False)
        | linear("1.3", width, 4 * width, bias=False)
    )
