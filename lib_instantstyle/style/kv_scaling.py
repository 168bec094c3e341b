"""How a weight acts on keys and values: ComfyUI_IPAdapter_plus, `embeds_scaling` (CrossAttentionPatch.py@9d076a3:186).

Keys and values are (…, tokens, channels).
"""

from __future__ import annotations

from torch import Tensor

WIDEST = 1280  # channels of SDXL's deepest layers, where the penalty is none


def v_only(key: Tensor, value: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """IP-Adapter's own: K, w V."""
    return key, value * weight


def k_and_v(key: Tensor, value: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """w K, w V: a low weight also flattens the softmax over the tokens, a high one sharpens it."""
    return key * weight, value * weight


def penalised(key: Tensor, value: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """w' K, w' V with w' = w · channels / 1280: shallow layers get less."""
    return k_and_v(key, value, weight * key.shape[-1] / WIDEST)


def k_and_mean_v(key: Tensor, value: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """w' K, (V − m) + w' m, m the mean of V over the tokens, w' as above: weights above 1 do not burn."""
    weight *= key.shape[-1] / WIDEST
    mean = value.mean(-2, keepdim=True)
    return key * weight, value - mean + weight * mean


SCALINGS = {"v": v_only, "kv": k_and_v, "kv_penalty": penalised, "k_mean_v": k_and_mean_v}
