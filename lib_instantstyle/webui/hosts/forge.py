"""Forge, Forge Neo, reForge and Forge Classic: their answers to what a style session and a job ask.

They share how a model is held (`forge_objects`) and how a batch is built; where a name differs between them, the one
that is there is taken.
"""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from modules import devices, sd_models, shared

from ...files.text_towers import Tokenizer
from ...reference.names import fingerprint
from ...units.errors import CheckpointError, IncompatibleModelError
from .forge_rows import marking, watch
from .texts import inversions_in, literally, unnoted
from .webui_host import ReadCall, WebUIHost

ENCODER_BYTES = 4 << 30  # of the largest image encoder, bigG, in half precision, with what it computes
NO_CHECKPOINT = "No checkpoint is loaded. Choose an SDXL checkpoint."


def memory_management() -> Any:
    """The module by which this WebUI holds its models, or None where it is of another family."""
    names = ("backend.memory_management", "ldm_patched.modules.model_management")
    return next((sys.modules[name] for name in names if name in sys.modules), None)


class ForgeHost(WebUIHost):
    """The UNet lies in `forge_objects.unet`, a patcher that every job gets anew and that other extensions clone."""

    def __init__(self) -> None:
        super().__init__()
        _have_compiled_models_look_at_hooks()

    def unet(self) -> nn.Module:
        unet = checkpoint().forge_objects.unet.model.diffusion_model
        if hasattr(unet, "_orig_mod"):
            raise IncompatibleModelError(
                "The UNet was compiled when it was loaded, and a compiled UNet does not see the style. Start the WebUI "
                "without --torch-compile."
            )
        return unet

    def loaded_unet(self) -> nn.Module | None:
        objects = getattr(sd_models.model_data.sd_model, "forge_objects", None)
        return objects and objects.unet.model.diffusion_model

    def text_width(self) -> int | None:
        return _pooled_width(checkpoint())

    def loaded_text_width(self) -> int | None:
        return _pooled_width(sd_models.model_data.sd_model)

    def mark_rows(self, params: Any) -> None:
        """The patcher may be another one at each step: the refiner's, or one that another extension put there."""
        objects = checkpoint().forge_objects
        objects.unet = marking(objects.unet)

    def watch_calls(self, read: ReadCall) -> RemovableHandle:
        return watch(checkpoint().forge_objects.unet.model.diffusion_model, read)

    def shows_errors_of(self, p: Any) -> bool:
        """reForge and Forge Classic have a thread of its own work for the page, and forget what it raises."""
        return bool(p.is_api) or hasattr(sys.modules.get("modules_forge.main_thread"), "last_exception")

    def why_layers_pass_hooks_by(self) -> str | None:
        if "apply_model" not in vars(checkpoint().forge_objects.unet.model):  # nobody has put a wrapper there
            return None
        return (
            "The UNet is compiled (torch.compile), and the compiled version left the style out. Switch compiling off."
        )

    @contextmanager
    def room_for_encoder(self) -> Iterator[None]:
        shared.state.textinfo = "InstantStyle: reading the reference picture…"
        device, dtype = self.encoder_device()
        if device.type != "cpu":
            memory_management().free_memory(ENCODER_BYTES * dtype.itemsize / torch.float16.itemsize, device)
        try:
            yield
        finally:
            devices.torch_gc()
            shared.state.textinfo = None

    def tokenizer(self) -> Tokenizer | None:
        """The first text encoder's: with the second one's, "!" is the number that fills a text up."""
        own = getattr(checkpoint().forge_objects.clip.tokenizer, "clip_l", None)
        own = getattr(own, "tokenizer", own)
        if own is None:
            return None
        return lambda text: own(html.unescape(html.unescape(text)), add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        model = checkpoint()
        with _original_text_encoder(model), unnoted(*_notebooks()):
            conditioning = model.get_learned_conditioning([literally(text) for text in texts])
        pooled = conditioning["vector"][:, : _pooled_width(model)]  # sizes and crops follow
        with torch.inference_mode(False):  # what is made in it can be used there only, and this is kept
            return pooled.float().cpu().clone()

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        model = checkpoint()
        try:
            files = [fingerprint(Path(file)) for file in (model.sd_checkpoint_info.filename, *_text_encoder_files())]
            return "".join([*files, inversions_in(texts, _inversions(model))])
        except CheckpointError:  # the file is gone, its model is still in memory
            return None


def checkpoint() -> Any:
    """The checkpoint in use, which Forge loads with the first picture. Raises IncompatibleModelError without one."""
    if not hasattr(shared.sd_model, "forge_objects") and hasattr(sd_models, "forge_model_reload"):
        try:
            sd_models.forge_model_reload()
        except ValueError:  # there is no such file
            raise IncompatibleModelError(NO_CHECKPOINT) from None
    if not hasattr(shared.sd_model, "forge_objects"):
        raise IncompatibleModelError(NO_CHECKPOINT)
    return shared.sd_model


def _pooled_width(model: Any) -> int | None:
    """Width of the pooled text of the checkpoint's second text encoder, or None when it has no such encoder."""
    objects = getattr(model, "forge_objects", None)
    tower = getattr(getattr(getattr(objects, "clip", None), "cond_stage_model", None), "clip_g", None)
    named = tower.named_parameters() if isinstance(tower, nn.Module) else ()
    found = (value.shape[0] for name, value in named if name.removesuffix(".weight").endswith("text_projection"))
    return next(found, None)


def _text_encoder_files() -> list[str]:
    """Files beside the checkpoint's that its text encoder may come from."""
    beside = getattr(sd_models.model_data, "forge_loading_parameters", {}).get("additional_modules") or ()
    chosen = getattr(sys.modules.get("modules.sd_text_encoder"), "current_text_encoder_option", None)
    named = getattr(getattr(chosen, "te_info", None), "filename", None)
    return [*beside, *([named] if named else [])]


def _inversions(model: Any) -> Any:
    """Where textual inversions are looked up by the second text encoder."""
    engine = getattr(model, "text_processing_engine_g", None)
    return engine.embeddings if engine else sys.modules["modules.sd_hijack"].model_hijack.embedding_db


def _notebooks() -> list[tuple[Any, str]]:
    """Where encoding a text writes what it used, for the infotext of a job."""
    engine = sys.modules.get("backend.text_processing.classic_engine")
    arguments = getattr(sys.modules.get("backend.args"), "dynamic_args", None)
    hijack = getattr(sys.modules.get("modules.sd_hijack"), "model_hijack", None)
    names = ("last_extra_generation_params", "extra_generation_params", "comments")
    return [(place, name) for place in (engine, arguments, hijack) for name in names if hasattr(place, name)]


@contextmanager
def _original_text_encoder(model: Any) -> Iterator[None]:
    """Keep LoRAs, which a job puts onto a clone of the text encoder, out of it."""
    objects = model.forge_objects
    kept, objects.clip = objects.clip, model.forge_objects_original.clip
    try:
        yield
    finally:
        objects.clip = kept


def _have_compiled_models_look_at_hooks() -> None:
    """torch takes it that a compiled model's hooks never change: ours would not be seen, or not be missed."""
    import torch._dynamo.config as compiling

    if hasattr(compiling, "skip_nnmodule_hook_guards"):
        compiling.skip_nnmodule_hook_guards = False
