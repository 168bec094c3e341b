"""The frozen UNet's prediction with the adapter that learns, through the very formula and places of generation.

Where style/attention keeps keys and values through a job, here they are computed in each call, so that gradients flow
into `to_k_ip`, `to_v_ip` and the projection. Before the first layer that acts, the UNet computes without gradients by
itself: nothing there needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...style.attention import StyledLayer
from ...style.key_values import KeyValueStack, lay_out
from ...style.rows import ModelCall
from ...units.blocks import Layer
from .adapter import LayerWeights, LearningAdapter
from .lora import LearningLora


@dataclass
class LearningCall:
    """The training pass in progress; outside of one, no layer adds anything."""

    tokens: Tensor | None = None  # (rows, tokens, cross_attention_dim)
    acting: frozenset[int] = frozenset()  # indices of the layers of the step's group


class LearningLayer(StyledLayer):
    """One `attn2` whose to_k_ip and to_v_ip learn; hooked where a styled layer is."""

    def __init__(self, attn2: Any, layer: Layer, weights: LayerWeights, call: LearningCall) -> None:
        super().__init__(attn2, (), ModelCall())
        self._layer, self._weights, self._learning = layer, weights, call

    def acting(self, query: Tensor) -> KeyValueStack | None:
        """The keys and values that query (rows, seq, inner) attends to, or None when it does not act in this step."""
        tokens = self._learning.tokens
        if tokens is None or self._layer.index not in self._learning.acting:
            return None
        key, value = self._weights.to_k_ip(tokens), self._weights.to_v_ip(tokens)  # (rows, tokens, inner)
        return lay_out(key.to(query), value.to(query), self.attn2.heads, (tokens.shape[1],))


@dataclass(frozen=True, eq=False)
class ModelInput:
    """One batch as the UNet eats it."""

    noisy: Tensor  # (n, c, h, w)
    timesteps: Tensor  # (n,)
    context: Tensor  # (n, text tokens, cross_attention_dim)
    pooled: Tensor  # (n, width)
    time_ids: Tensor  # (n, 6): original height and width, crop top and left, target height and width
    image_embeds: Tensor  # (n, width) or (n, patches + 1, width)


class StyledPrediction(nn.Module):
    """Calls the UNet with an adapter's hooks on it. The UNet is no submodule: only the adapter learns and is saved."""

    def __init__(self, unet: nn.Module, modules: Mapping[Layer, Any], adapter: LearningAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self._unet = (unet,)
        self._call = LearningCall()
        trained = [layer for layer in modules if str(2 * layer.index + 1) in adapter.ip_adapter]
        self._layers = [LearningLayer(modules[x], x, adapter.weights(x), self._call) for x in trained]

    def attach(self) -> None:
        """Put the hooks onto the UNet."""
        for layer in self._layers:
            layer.attach()

    def detach(self) -> None:
        """Take them out again."""
        for layer in self._layers:
            layer.detach()

    def forward(self, given: ModelInput, acting: frozenset[int]) -> Tensor:
        """The UNet's prediction (n, c, h, w), with the layers of these indices adding the image prompt."""
        added = {"text_embeds": given.pooled, "time_ids": given.time_ids}
        self._call.tokens, self._call.acting = self.adapter.image_proj(given.image_embeds), acting
        try:
            found: Tensor = self._unet[0](
                given.noisy, given.timesteps, given.context, added_cond_kwargs=added, return_dict=False
            )[0]
        finally:
            self._call.tokens = None
        return found


class AdaptedPrediction(nn.Module):
    """Calls the UNet with a LoRA's hooks on it, likewise."""

    def __init__(self, unet: nn.Module, lora: LearningLora) -> None:
        super().__init__()
        self.adapter = lora
        self._unet = (unet,)
        self._acting: frozenset[int] = frozenset()
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Put the hooks onto the UNet."""
        for path, module in self._unet[0].named_modules():
            if path in self.adapter.places:
                self._handles.append(module.register_forward_hook(self._adding(path)))

    def detach(self) -> None:
        """Take them out again."""
        while self._handles:
            self._handles.pop().remove()

    def _adding(self, path: str) -> Any:
        pair, layer = self.adapter.pair(path), self.adapter.places[path]

        def instantstyle_learn_low_rank(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            return output + pair(args[0]).to(output) if layer in self._acting else None

        return instantstyle_learn_low_rank

    def forward(self, given: ModelInput, acting: frozenset[int]) -> Tensor:
        """The UNet's prediction (n, c, h, w), with the pairs of the layers of these indices added."""
        added = {"text_embeds": given.pooled, "time_ids": given.time_ids}
        self._acting = acting
        try:
            found: Tensor = self._unet[0](
                given.noisy, given.timesteps, given.context, added_cond_kwargs=added, return_dict=False
            )[0]
        finally:
            self._acting = frozenset()
        return found


def prediction_of(
    unet: nn.Module, modules: Mapping[Layer, Any], learning: LearningAdapter | LearningLora
) -> StyledPrediction | AdaptedPrediction:
    """The UNet with what learns on it; modules: its attn2 by layer."""
    if isinstance(learning, LearningLora):
        return AdaptedPrediction(unet, learning)
    return StyledPrediction(unet, modules, learning)
