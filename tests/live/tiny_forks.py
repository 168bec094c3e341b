"""The tiny checkpoint in the Forge family, which knows SDXL by its widths: they are told of these."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import tiny_shapes as unet
import tiny_towers as towers
import tiny_vae
from live_kind import kind

UNET = {
    "model_channels": unet.NARROW,
    "use_linear_in_transformer": True,
    "transformer_depth": [0, 0, unet.SHALLOW, unet.SHALLOW, unet.DEEP, unet.DEEP],
    "context_dim": unet.CONTEXT_WIDTH,
    "adm_in_channels": unet.VECTOR_WIDTH,
    "use_temporal_attention": False,
}
HEADS = {"num_heads": -1, "num_head_channels": unet.HEAD_WIDTH}
FIRST = {
    "hidden_size": unet.CLIP_WIDTH,
    "intermediate_size": 4 * unet.CLIP_WIDTH,
    "num_attention_heads": towers.CLIP_HEADS,
    "projection_dim": unet.CLIP_WIDTH,
}
SECOND = {
    "hidden_size": unet.OPEN_CLIP_WIDTH,
    "intermediate_size": 4 * unet.OPEN_CLIP_WIDTH,
    "num_attention_heads": 4,
    "num_hidden_layers": towers.OPEN_CLIP_LAYERS,
    "projection_dim": unet.OPEN_CLIP_WIDTH,
}
BASE = "backend/huggingface/stabilityai/stable-diffusion-xl-base-1.0"


def teach(folder: Path) -> None:
    """Let the WebUI of this process load the tiny checkpoint; `folder` gets the files that takes."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind().has_backend:
        _teach_guess(_description(folder / "tiny-sdxl"))
    else:
        sys.meta_path.insert(0, _AfterImport(_changes(folder)))


def _teach_guess(description: Path) -> None:
    import huggingface_guess.model_list as known

    tiny: dict[str, Any] = {
        "huggingface_repo": str(description),  # a full path stays one when it is joined to the WebUI's folder
        "unet_config": UNET,
        "unet_extra_config": HEADS,
    }
    for name, value in tiny.items():  # the class itself: Neo looks for exactly this one
        setattr(known.SDXL, name, value)


def _description(target: Path) -> Path:
    """SDXL's folder of configurations, with the tiny widths."""
    shutil.copytree(Path(os.environ["WEBUI_DIR"]) / BASE, target)
    for vae in target.glob("vae*"):
        _change(vae / "config.json", {"block_out_channels": list(tiny_vae.WIDTHS)})
    _change(target / "text_encoder/config.json", FIRST)
    _change(target / "text_encoder_2/config.json", SECOND)
    return target


def _change(path: Path, values: dict[str, Any], target: Path | None = None) -> Path:
    (target or path).write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), encoding="utf-8")
    return target or path


def _changes(folder: Path) -> dict[str, Callable[[Any], None]]:
    """What is done to a module of ldm_patched as soon as it is loaded."""
    patched = Path(os.environ["WEBUI_DIR"]) / "ldm_patched/modules"
    files = {name: _change(patched / name, widths, folder / name) for name, widths in CLIP_FILES.items()}

    def text_towers(module: Any) -> None:
        init = module.SDClipModel.__init__

        def init_tiny(self: Any, *args: Any, textmodel_json_config: Any = None, **kwargs: Any) -> None:
            name = Path(textmodel_json_config or "sd1_clip_config.json").name
            init(self, *args, textmodel_json_config=str(files[name]), **kwargs)

        module.SDClipModel.__init__ = init_tiny

    def models(module: Any) -> None:
        module.models.insert(0, type("TinySDXL", (module.SDXL,), {"unet_config": UNET, "unet_extra_config": HEADS}))

    def loading(module: Any) -> None:
        module.AutoencoderKL = _with_tiny_vae(module.AutoencoderKL)

    names = {"sd1_clip": text_towers, "supported_models": models, "sd": loading}
    return {f"ldm_patched.modules.{name}": change for name, change in names.items()}


CLIP_FILES = {"sd1_clip_config.json": FIRST, "clip_config_bigg.json": SECOND}


def _with_tiny_vae(real: Callable[..., Any]) -> Callable[..., Any]:
    width = tiny_vae.WIDTHS[0]
    widths = {"ch": width, "ch_mult": [each // width for each in tiny_vae.WIDTHS]}

    def tiny(*args: Any, ddconfig: dict[str, Any], **kwargs: Any) -> Any:
        return real(*args, ddconfig={**ddconfig, **widths}, **kwargs)

    return tiny


class _AfterImport(importlib.abc.MetaPathFinder):
    def __init__(self, changes: dict[str, Callable[[Any], None]]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        change = self._changes.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if change else None
        if change is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
