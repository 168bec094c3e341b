"""Taking content out of patch features, for plus adapters. Experimental: docs/decisions/0006-removing-content.md.

A plus adapter reads the hidden states of all patches, one layer before CLIP's joint space, where no text lives and
plain subtraction is not defined. What lies between is the encoder's last layer, last norm and projection: `PatchHead`,
read from the encoder file alone (42 MB for ViT-H in half precision), which runs on the CPU in a moment. It reads each
token by itself into the joint space; `remove_from_patches` asks what a method of `content` would change in that
reading, and makes the smallest change of the hidden states that has this effect, to first order.

hidden: (n, tokens, width), of n pictures · content in the joint space (k, projection).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ..files.clip_formats import VISION, read_tower
from ..files.image_encoders import EncoderInfo
from ..units.errors import CheckpointError
from .content import Content, remove

KEPT_READINGS = 128 << 20  # bytes: for ViT-H 90 pictures' slopes along one phrase
_RIDGE = 1e-6  # relative: keeps directions that hardly reach the joint space from being moved far
_HEAD = ("vision_model.post_layernorm.", "visual_projection.")


@dataclass(frozen=True, eq=False)
class PatchHead:
    """The end of an image encoder. `tensors` by their names within the last layer, or within the tower; float32."""

    tensors: Mapping[str, Tensor]
    attention_heads: int
    activation: str  # as transformers calls it
    eps: float  # of the norms
    _kept: OrderedDict[str, tuple[Tensor, Tensor]] = field(default_factory=OrderedDict)  # readings, by what was read

    def dense(self, hidden: Tensor) -> Tensor:
        """What each token says by itself, in the joint space: (n, tokens, width) → (n, tokens, projection).

        The last layer with every token attending to itself alone, so that its attention is out_proj(v_proj(x)), as in
        MaskCLIP (Zhou, Loy and Dai, arXiv:2112.01071 §3.2), which finds objects with it without any training.
        """
        x = hidden + self._linear("self_attn.out_proj", self._linear("self_attn.v_proj", self._norm1(hidden)))
        return self._read_out(x)

    def reading(self, hidden: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """f(h) = dense (n, tokens, projection), and its slopes ∂⟨f, bᵢ⟩/∂h along the basis (n, tokens, k, width).

        hidden (n, tokens, width), basis (k, projection). A tenth of a second a phrase and picture for ViT-H, so the
        last ones are kept: they do not depend on method and strength, which people move while they look.
        """
        key = hashlib.sha256(hidden.numpy().tobytes() + basis.numpy().tobytes()).hexdigest()
        found = self._kept.pop(key, None) or _slopes(self, hidden, basis)
        self._kept[key] = found
        while sum(slopes.nbytes for _, slopes in self._kept.values()) > KEPT_READINGS:
            self._kept.popitem(last=False)
        return found

    def pooled(self, hidden: Tensor) -> Tensor:
        """The image embedding of hidden states, as the encoder itself ends: (n, tokens, width) → (n, projection)."""
        x = self._norm1(hidden)
        q, k, v = (
            self._linear(f"self_attn.{name}_proj", x).unflatten(-1, (self.attention_heads, -1)).transpose(1, 2)
            for name in "qkv"
        )  # (n, heads, tokens, head_dim)
        attended = functional.scaled_dot_product_attention(q[:, :, :1], k, v).transpose(1, 2).flatten(2)
        return self._read_out(hidden[:, :1] + self._linear("self_attn.out_proj", attended))[:, 0]

    def _read_out(self, x: Tensor) -> Tensor:
        x = x + self._linear("mlp.fc2", self._activate(self._linear("mlp.fc1", self._norm("layer_norm2", x))))
        return functional.linear(self._norm("post_layernorm", x), self.tensors["visual_projection.weight"])

    def _activate(self, x: Tensor) -> Tensor:
        from transformers.activations import ACT2FN

        return ACT2FN[self.activation](x)

    def _norm1(self, x: Tensor) -> Tensor:
        return self._norm("layer_norm1", x)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, self.eps)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])


def _slopes(head: PatchHead, hidden: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Each token is read by itself, so one derivative of the sum over tokens holds those of all of them."""
    with torch.inference_mode(False), torch.enable_grad():
        moving, basis = hidden.clone().requires_grad_(), basis.clone()  # plain tensors, where they were not
        said = head.dense(moving)
        along = (said @ basis.mT).sum(dim=(0, 1))  # (k,)
        slopes = [torch.autograd.grad(one, moving, retain_graph=True)[0] for one in along]
    return said.detach(), torch.stack(slopes, dim=2)


_WANTED = {
    *(f"{name}.{kind}" for name in ("layer_norm1", "layer_norm2", "post_layernorm") for kind in ("weight", "bias")),
    *(f"self_attn.{part}_proj.{kind}" for part in ("q", "k", "v", "out") for kind in ("weight", "bias")),
    *(f"mlp.{part}.{kind}" for part in ("fc1", "fc2") for kind in ("weight", "bias")),
    "visual_projection.weight",
}


def read_patch_head(info: EncoderInfo) -> PatchHead:
    """The head of an encoder file; nothing else of it is read. Raises CheckpointError when parts are missing or odd."""
    config = info.config
    last = f"vision_model.encoder.layers.{config['num_hidden_layers'] - 1}."
    read = read_tower(info.path, VISION, info.layout, info.prefix, lambda name: name.startswith((last, *_HEAD)))
    tensors = {name.removeprefix(last).removeprefix("vision_model."): tensor for name, tensor in read.items()}
    head = PatchHead(
        {name: tensor.float() for name, tensor in tensors.items() if name in _WANTED},
        config["num_attention_heads"],
        config["hidden_act"],
        config.get("layer_norm_eps", 1e-5),
    )
    _check(info, head)
    return head


def _check(info: EncoderInfo, head: PatchHead) -> None:
    """Run it once on nothing: shapes that do not fit show, and so do values that are not numbers."""
    if lacking := sorted(_WANTED - head.tensors.keys()):
        raise CheckpointError(f"{info.path.name} is incomplete: it lacks {lacking[0]} in its last layer.")
    try:
        nothing = torch.zeros(1, 2, info.config["hidden_size"])
        finite = bool(head.dense(nothing).isfinite().all() and head.pooled(nothing).isfinite().all())
    except (RuntimeError, KeyError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{info.path.name} does not fit its own layout: {error}") from None
    if not finite:
        raise CheckpointError(f"{info.path.name} is damaged: its last layer holds values that are not numbers.")


def remove_from_patches(method: str, hidden: Tensor, content: Content, scale: float, head: PatchHead) -> Tensor:
    """Hidden states without the content, by the method of that name: (n, tokens, width) → the same.

    h' = h − Jᵀ(JJᵀ)⁻¹Δ, the smallest change that moves each token's reading f(h) by −Δ, to first order.

    f is `PatchHead.dense`; Δ = f − remove(f) is what the unit's method takes from the reading, in the span of the
    content; J (k, width) is the derivative of f along the content, through projection, norms and the last layer's value
    path. For one phrase, g = ∂⟨f, t̂⟩/∂h: h' = h − ⟨Δ, t̂⟩g/‖g‖².
    """
    if method == "off" or scale == 0 or not content.embeds.any():
        return hidden
    basis = _basis(content)  # (k, projection), orthonormal
    return torch.cat([_pulled(method, one, content, scale, head, basis) for one in hidden.split(1)])


def _pulled(method: str, hidden: Tensor, content: Content, scale: float, head: PatchHead, basis: Tensor) -> Tensor:
    """One picture: slopes of many would not fit into memory."""
    states = hidden.float()
    said, slopes = head.reading(states, basis)  # (1, tokens, projection), (1, tokens, k, width)
    change = said - remove(method, said[0], content, scale)
    wanted = change @ basis.mT  # (1, tokens, k)
    gram = slopes @ slopes.mT  # (1, tokens, k, k)
    ridge = _RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1).clamp_min(1e-12)
    gram = gram + ridge[..., None, None] * torch.eye(len(basis))
    step = torch.linalg.solve(gram, wanted[..., None])  # (1, tokens, k, 1)
    return (states - (slopes.mT @ step)[..., 0]).to(hidden.dtype)


def _basis(content: Content) -> Tensor:
    """Orthonormal rows that span the content: (rank, projection) float32."""
    _, s, vh = torch.linalg.svd(content.embeds.double(), full_matrices=False)
    return vh[s > 1e-5 * s.max().clamp_min(1e-12)].float()
