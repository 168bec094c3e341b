"""IP-Adapter files: told apart by keys, sized by shapes, refused by name. File names mean nothing here.

Layouts and their sources: docs/checkpoints.md. A file's tensors come in two groups, the image projection and the
layers, whatever they are called (`adapter_names`); `{2n+1}.to_k_ip.weight` belongs to layer n.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..units.blocks import SD15_BLOCKS, Layer
from ..units.errors import CheckpointError, IncompatibleModelError, UnknownBlockError
from .adapter_names import layer_names, projection_names
from .image_encoders import Feature
from .projections import ImageProjModel, Resampler
from .tensor_files import TensorFile, few, open_tensors

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter file is, read off its keys and shapes."""

    path: Path
    variant: str  # "base" or "plus"
    feature: Feature  # what it eats
    tokens: int  # for each picture
    cross_attention_dim: int
    layer_widths: dict[int, int]  # layer index → rows of to_k_ip; an adapter may carry only some layers
    projection_names: dict[str, str]  # parameter → key in the file
    layer_names: dict[str, str]  # "{2n+1}.to_k_ip.weight" → key in the file
    nothing_is_zeros: bool = False  # a plus adapter's view of no picture: zeros, not the mid-grey picture's states

    @property
    def name(self) -> str:
        return self.path.stem

    def check_fits(self, modules: Mapping[Layer, nn.Module]) -> None:
        """Raise IncompatibleModelError unless every layer of the file fits the UNet it is to style."""
        highest = max(self.layer_widths)
        if highest >= len(modules):
            raise IncompatibleModelError(
                f"{self.path.name} has a layer number {highest + 1}, but the loaded checkpoint has only {len(modules)} "
                "cross-attention layers. Choose an adapter made for this checkpoint's family.",
                "adapter",
            )
        for layer, module in modules.items():
            self._check_layer(layer, module)

    def _check_layer(self, layer: Layer, attn2: Any) -> None:
        expected = shape_of(attn2.to_k.weight)
        given = (self.layer_widths.get(layer.index, expected[0]), self.cross_attention_dim)
        if given != expected:
            raise IncompatibleModelError(
                f"{self.path.name} does not fit the loaded checkpoint: at {layer.names[0]} it has "
                f"{given[0]}×{given[1]}, the checkpoint has {expected[0]}×{expected[1]}. Choose an SDXL adapter "
                "(cross-attention width 2048) and an SDXL checkpoint.",
                "adapter",
            )

    def check_carries(self, layers: Mapping[Layer, float]) -> None:
        """Raise UnknownBlockError when a routed layer is not in the file."""
        lacking = dict.fromkeys(layer.block for layer in layers if layer.index not in self.layer_widths)
        if lacking:
            raise UnknownBlockError(
                f"{self.path.name} has no layers for {', '.join(lacking)}: it was trained for other blocks only. "
                "Choose another preset, or an adapter with all blocks.",
                "preset",
            )


def shape_of(weight: Any) -> tuple[int, ...]:
    """That of the matrix which a weight stands for: bitsandbytes packs its numbers, and keeps the shape beside them."""
    return tuple(getattr(getattr(weight, "quant_state", None), "shape", weight.shape))


@dataclass(frozen=True)
class OtherKind:
    """A kind of adapter that is recognised and not supported."""

    found_in: Callable[[Shapes, Shapes], bool]  # (projection, layers) → is it this kind?
    name: str
    reason: str


def _context_width(layers: Shapes) -> int:
    return next((shape[1] for name, shape in layers.items() if name.endswith("to_k_ip.weight")), 0)


def _is_small_unets(layers: Shapes, context: int) -> bool:
    """Whether the layers are those of an SD 1.5 or SD 2 UNet: sixteen at most, and of its context width."""
    numbers = [int(name.partition(".")[0]) for name in layers if name.endswith("to_k_ip.weight")]
    return _context_width(layers) == context and max(numbers) // 2 < len(SD15_BLOCKS)


# Order matters: the more special kinds come first.
OTHER_KINDS = (
    OtherKind(
        lambda p, a: any("_lora." in key for key in a) or any(key.startswith("perceiver_resampler.") for key in p),
        "a FaceID adapter",
        "it reads InsightFace face embeddings, which carry no style",
    ),
    OtherKind(
        lambda p, a: "norm.weight" in p and "proj.2.weight" in p,
        "a FaceID portrait adapter",
        "it reads InsightFace face embeddings, which carry no style",
    ),
    OtherKind(
        lambda p, a: p.get("proj_in.weight", (0, 0))[1] == 512,
        "an InstantID adapter",
        "it reads InsightFace face embeddings, which carry no style",
    ),
    OtherKind(
        lambda p, a: p.get("latents", (0, 0, 0))[2] == 2048,
        "a Kolors adapter",
        "it was trained for the Kolors model, whose text encoder is not SDXL's",
    ),
    OtherKind(
        lambda p, a: _is_small_unets(a, 768), "an SD 1.5 adapter", "its cross-attention is 768 wide, SDXL's is 2048"
    ),
    OtherKind(
        lambda p, a: _is_small_unets(a, 1024), "an SD 2 adapter", "its cross-attention is 1024 wide, SDXL's is 2048"
    ),
)
_OF_CSGO = re.compile(r"(?P<around>^|\.)(?P<branch>style|content)_image_proj\.")
_CSGO_STYLE_LAYERS = range(24, 60)  # those of up_blocks; its content branch is in down_blocks, mid_block has neither


def inspect_adapter(path: Path) -> AdapterInfo:
    """What the file at `path` is, from keys and shapes; no tensor is read. Raises CheckpointError with the reason."""
    return identify(path, open_tensors(path).shapes)


def identify(path: Path, shapes: Shapes) -> AdapterInfo:
    """As `inspect_adapter`, from shapes alone."""
    try:
        return _identified(path, shapes)
    except (IndexError, KeyError, ValueError, ZeroDivisionError):
        raise CheckpointError(f"{path.name} has tensor names or shapes that no IP-Adapter for SDXL has.") from None


def _identified(path: Path, shapes: Shapes) -> AdapterInfo:
    if style := _csgo_style(shapes):
        return _as_named(style, _plain(path, {key: shapes[own] for key, own in style.items()}))
    return _plain(path, shapes)


def _csgo_style(shapes: Shapes) -> dict[str, str]:
    """CSGO's style branch as the plus adapter that it is: plain key → key in the file. Empty for other files.

    instantX-research/CSGO@fefec09 ip_adapter/ip_adapter.py, attention_processor.py.
    """
    found = {key: match["branch"] for key in shapes if (match := _OF_CSGO.search(key))}
    if "style" not in found.values():
        return {}
    kept = (key for key in shapes if found.get(key) != "content")
    return {_OF_CSGO.sub(r"\g<around>image_proj.", key): key for key in kept}


def _as_named(names: Mapping[str, str], info: AdapterInfo) -> AdapterInfo:
    """A style branch's description by the keys that its file has, with the layers that it was trained for alone."""
    numbers = {2 * index + 1 for index in _CSGO_STYLE_LAYERS}
    layers = {name: names[key] for name, key in info.layer_names.items() if int(name.partition(".")[0]) in numbers}
    widths = {index: width for index, width in info.layer_widths.items() if index in _CSGO_STYLE_LAYERS}
    if not widths:
        raise ValueError("a style branch without a layer would do nothing")
    projection = {name: names[key] for name, key in info.projection_names.items()}
    return replace(info, layer_widths=widths, projection_names=projection, layer_names=layers, nothing_is_zeros=True)


def _plain(path: Path, shapes: Shapes) -> AdapterInfo:
    in_projection, in_layers = projection_names(path.name, shapes), layer_names(path.name, shapes)
    projection = {name: shapes[key] for name, key in in_projection.items()}
    layers = {name: shapes[key] for name, key in in_layers.items()}
    _refuse(path, shapes, projection, layers)
    context = _context_width(layers)
    variant, feature, tokens = _variant(path, projection, context)
    widths = _layer_widths(path, layers, context)
    if tokens < 1 or not widths:
        raise ValueError("an adapter without tokens, or without a layer, would do nothing")
    return AdapterInfo(path, variant, feature, tokens, context, widths, in_projection, in_layers)


def _refuse(path: Path, shapes: Shapes, projection: Shapes, layers: Shapes) -> None:
    if any(map(_OF_CSGO.search, shapes)):
        raise CheckpointError(f"{path.name} is CSGO's content branch alone. Choose a file with its style branch.")
    if not any(name.endswith("to_k_ip.weight") for name in layers):
        found = few(shapes) or "nothing"
        raise CheckpointError(f"{path.name} is not an IP-Adapter: it has no to_k_ip layers (found {found}, …).")
    for kind in OTHER_KINDS:
        if kind.found_in(projection, layers):
            raise CheckpointError(f"{path.name} is {kind.name}: {kind.reason}. Choose an SDXL IP-Adapter.")


def _variant(path: Path, projection: Shapes, context: int) -> tuple[str, Feature, int]:
    if "proj.weight" in projection:
        rows, width = projection["proj.weight"]
        return "base", Feature("pooled", width), rows // context
    if "latents" in projection and "proj_in.weight" in projection:
        return "plus", Feature("hidden", projection["proj_in.weight"][1]), projection["latents"][1]
    found = few(projection) or "none"
    raise CheckpointError(
        f"{path.name} has no image projection that can be read here (looked for image_proj.proj.weight and "
        f"image_proj.latents; found {found})."
    )


def _layer_widths(path: Path, layers: Shapes, context: int) -> dict[int, int]:
    widths = {}
    for name in layers:
        if name.endswith(".to_k_ip.weight"):
            number = name.removesuffix(".to_k_ip.weight")
            index, shape = int(number) // 2, (layers[name][0], context)
            pair = layers[name], layers.get(f"{number}.to_v_ip.weight")
            if pair != (shape, shape) or number != str(2 * index + 1) or index < 0:
                raise CheckpointError(f"{path.name} is damaged: layer {number} has no to_v_ip to go with its to_k_ip.")
            widths[index] = shape[0]
    return widths


class Adapter:
    """An open adapter file. Tensors are read when asked for, as float32, and not kept."""

    def __init__(self, info: AdapterInfo) -> None:
        """Raises CheckpointError when the file is gone, or is not the one that `info` describes."""
        self.info = info
        self._file: TensorFile = open_tensors(info.path)
        if identify(info.path, self._file.shapes) != info:
            raise CheckpointError(f"{info.path.name} was replaced by another file during the job. Start the job again.")

    def projection(self) -> nn.Module:
        """The image projection with its weights, in eval mode. Raises CheckpointError when parts are missing or odd."""
        names = self.info.projection_names
        shapes = {name: self._file.shapes[key] for name, key in names.items()}
        tensors = {name: self._read(key) for name, key in names.items()}
        try:
            with torch.device("meta"):
                module = _empty_projection(self.info, shapes)
                self._try(module)
            module.load_state_dict(tensors, assign=True)
        except (KeyError, RuntimeError, IndexError, ValueError) as error:
            raise CheckpointError(f"The image projection in {self.info.path.name} is incomplete: {error}") from None
        return module.eval().requires_grad_(False)

    def _try(self, projection: nn.Module) -> None:
        """Run it on shapes alone. Raises an error of torch's, or ValueError, when it cannot give what it should."""
        width = self.info.feature.width
        given = projection(torch.zeros((1, width) if self.info.variant == "base" else (1, 1, width)))
        if given.shape != (1, self.info.tokens, self.info.cross_attention_dim):
            raise ValueError(f"it makes {tuple(given.shape)}")

    def to_k_ip(self, layer: Layer) -> Tensor:
        """(layer width, cross_attention_dim)"""
        return self._read(self.info.layer_names[f"{2 * layer.index + 1}.to_k_ip.weight"])

    def to_v_ip(self, layer: Layer) -> Tensor:
        """(layer width, cross_attention_dim)"""
        return self._read(self.info.layer_names[f"{2 * layer.index + 1}.to_v_ip.weight"])

    def _read(self, key: str) -> Tensor:
        tensor = self._file.read(key).float()
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{self.info.path.name} is damaged: {key} holds NaN or infinite values.")
        return tensor


def _empty_projection(info: AdapterInfo, shapes: Shapes) -> nn.Module:
    if info.variant == "plus":
        return Resampler(shapes, info.cross_attention_dim)
    return ImageProjModel(info.feature.width, info.cross_attention_dim, info.tokens)
