"""The ControlNet extension's IP-Adapter, imported from a checkout that somebody names; nothing of it is in here.

Its attention runs on a diffusers UNet by way of a view with ldm's names. What its UNet hook does beside the attention
is not in the figures, so they are the least that it costs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from lib_instantstyle.units.blocks import attention_layers, ldm_name

from .models import EMBED_DIM
from .timing import Subject

PACKAGE = "controlnet_extension"  # what its `scripts` are called here: ours are called so, too


class ControlNetMissing(Exception):
    """There is no checkout, or it cannot be imported; the message says which."""


class ControlNet:
    """One adapter of the extension on one UNet."""

    # Its "style transfer", "style and composition" and "normal" (scripts/ipadapter/weight.py): transformer → weight.
    WEIGHTS: Mapping[str, Any] = {"style": {6: 1.0}, "style + layout": {3: 1.0, 6: 1.0}, "all layers": 1.0}

    def __init__(self, checkout: Path | None, unet: nn.Module, adapter: dict[str, dict[str, Tensor]]) -> None:
        """Raises ControlNetMissing."""
        self._extension = _imported(checkout)
        self._view = LdmView(unet)
        ordered = dict(sorted(adapter["ip_adapter"].items(), key=lambda named: int(named[0].split(".")[0])))
        model = self._extension.ipadapter_model.IPAdapterModel
        self.model = model.load({"image_proj": adapter["image_proj"], "ip_adapter": ordered}, "ip-adapter")
        self.model.is_sdxl = True  # it tells by the width of the context, which is smaller in small sizes
        self._hook: Any = None
        self._kept: dict[str, Tensor] = {}  # keys and values, which it computes in the first UNet call of a job

    def subject(self, weights: Any, rows: tuple[bool, ...]) -> Subject:
        """Hooked as its script does, for UNet calls whose conditional rows are marked."""
        return Subject(lambda: self.enter(weights, rows), self.leave)

    def enter(self, weights: Any, rows: tuple[bool, ...]) -> None:
        like = next(self._view.unet.parameters())
        device = "cpu" if like.is_meta else like.device
        self._view.cond_mark = torch.tensor(rows, device=device, dtype=like.dtype)[:, None, None, None]
        self._hook = self._extension.plugable_ipadapter.PlugableIPAdapter(self.model)
        with _sgm(), torch.no_grad():
            self._hook.hook(self._view, {"image_embeds": torch.ones(1, EMBED_DIM)}, weights, 0.0, 1.0, 0, 0, None)
        self._hook.cache = self._kept
        self._view.speak_diffusers()

    def leave(self) -> None:
        self._extension.plugable_ipadapter.clear_all_ip_adapter()
        self._view.restore()

    def compute(self, block: str) -> None:
        """The keys and values of a block, which its first UNet call computes on the CPU."""
        with torch.no_grad():
            embeds = self._hook.image_emb.eval(self._view.cond_mark)
            for layer in attention_layers(self._view.unet):
                if layer.block == block:
                    for name in ("to_k_ip", "to_v_ip"):
                        self._hook.call_ip(f"{2 * layer.index + 1}_{name}", embeds, "cpu")

    @property
    def on_device(self) -> int:
        """Bytes of keys and values, which it leaves where the UNet is."""
        return sum(x.numel() * x.element_size() for x in self._kept.values())

    @property
    def resident(self) -> int:
        """Bytes of the whole adapter, which it keeps in float32, and of the keys and values it has computed."""
        kept = [*self.model.parameters(), *self._kept.values()]
        return sum(x.numel() * x.element_size() for x in kept)


@dataclass
class LayerOfControlNet:
    """Its IP-Adapter on one cross attention: units of weight 1, each with an adapter of its own."""

    checkout: Path | None
    attn2: Any
    tokens: int
    units: int

    def __post_init__(self) -> None:
        """Raises ControlNetMissing."""
        extension = _imported(self.checkout)
        self._pluggable = extension.plugable_ipadapter
        self.attn2.to_out = nn.Sequential(*self.attn2.to_out)
        self._plugs = [self._plug(extension.ipadapter_model) for _ in range(self.units)]

    def _plug(self, model: Any) -> Any:
        weight = self.attn2.to_k.weight
        pair = {f"1.{name}.weight": torch.randn(weight.shape) / 50 for name in ("to_k_ip", "to_v_ip")}
        plug = self._pluggable.PlugableIPAdapter(SimpleNamespace(ip_layers=model.To_KV(pair), is_pulid=False))
        plug.cache, plug.image_emb = {}, model.ImageEmbed(*torch.randn(2, 1, self.tokens, weight.shape[1]))
        return plug

    def subject(self, rows: tuple[bool, ...]) -> Subject:
        def enter() -> None:
            like = self.attn2.to_k.weight
            mark = torch.tensor(rows, device=like.device, dtype=like.dtype)[:, None, None, None]
            self._pluggable.current_model = SimpleNamespace(cond_mark=mark, current_sampling_percent=0.5)
            for plug in self._plugs:
                self._pluggable.hack_blk(self.attn2, plug.patch_forward(0, 0), type(self.attn2))
            self.attn2.forward = _as_diffusers(self.attn2)

        def leave() -> None:
            self._pluggable.clear_all_ip_adapter()
            self.attn2.__dict__.pop("forward", None)

        return Subject(enter, leave)


class LdmView:
    """A diffusers UNet as the extension looks at it: `input_blocks[8][1].transformer_blocks[3].attn2`."""

    current_sampling_percent = 0.5

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet
        self.cond_mark = torch.ones(1, 1, 1, 1)
        self.modules = list(attention_layers(unet).values())
        for attn2 in self.modules:  # it calls to_out, which diffusers keeps as a list
            attn2.to_out = nn.Sequential(*attn2.to_out)
        sides: dict[str, dict[int, Any]] = {"input_blocks": {}, "middle_block": {}, "output_blocks": {}}
        for block in dict.fromkeys(layer.block for layer in attention_layers(unet)):
            side, *number = ldm_name(block).split(".")
            sides[side][int(number[0]) if side != "middle_block" else 0] = {1: unet.get_submodule(block)}
        self.input_blocks, self.output_blocks = sides["input_blocks"], sides["output_blocks"]
        self.middle_block = sides["middle_block"][0]

    def speak_diffusers(self) -> None:
        """Let the forwards that the extension put in place be called as diffusers calls them."""
        for attn2 in self.modules:
            attn2.forward = _as_diffusers(attn2)

    def restore(self) -> None:
        for attn2 in self.modules:
            attn2.__dict__.pop("forward", None)


def _as_diffusers(attn2: Any) -> Any:
    """Called as diffusers calls it, and with the division that diffusers' attention ends with: the plain layer, which
    it is compared with, makes it, too."""
    forward = attn2.forward

    def called(hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        return forward(hidden_states, encoder_hidden_states) / attn2.rescale_output_factor

    return called


def why_missing(checkout: Path | None) -> str | None:
    """What there is to say where it cannot be measured; None where it can."""
    try:
        _imported(checkout)
    except ControlNetMissing as error:
        return str(error)
    return None


def _imported(checkout: Path | None) -> ModuleType:
    """Its package `ipadapter`. Raises ControlNetMissing."""
    if checkout is None:
        raise ControlNetMissing("name a checkout of sd-webui-controlnet with --controlnet or CONTROLNET_DIR")
    folder = checkout.expanduser() / "scripts"
    if not (folder / "ipadapter").is_dir():
        raise ControlNetMissing(f"{checkout} has no scripts/ipadapter")
    package = ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    try:
        for name in ("ipadapter_model", "plugable_ipadapter"):
            importlib.import_module(f"{PACKAGE}.ipadapter.{name}")
    except ImportError as error:
        raise ControlNetMissing(f"its IP-Adapter cannot be imported ({error})") from error
    return sys.modules[f"{PACKAGE}.ipadapter"]


@contextmanager
def _sgm() -> Iterator[None]:
    """It asks sgm for the class of cross attentions, to bind functions to; any class will do."""
    attention = SimpleNamespace(CrossAttention=nn.Module)
    named = {"sgm": SimpleNamespace(), "sgm.modules": SimpleNamespace(), "sgm.modules.attention": attention}
    with mock.patch.dict(sys.modules, named):
        yield
