"""The Forge family: Forge and Forge Neo load their model with the first picture; reForge and Classic lose errors."""

from __future__ import annotations

import html
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .a1111 import A1111
from .forge_model import Engine
from .forge_sampling import ForgeSampler
from .loading import module
from .processing import Img2Img, Job, Txt2Img


class Forge(A1111):
    """Forge; Forge Neo calls scripts once a hires pass, which its `calls_twice` of False stands for."""

    calls_twice = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.notes = SimpleNamespace(last_extra_generation_params={}, extra_generation_params={}, comments=[])
        self.memory_is_short = False
        super().__init__(*args, **kwargs)
        self.chosen, self.sd_model = self.sd_model, SimpleNamespace()  # FakeInitialModel
        del self.cmd_opts.no_half  # Neo has no such flag
        self.kinds = {"txt2img": ForgeTxt2Img, "img2img": ForgeImg2Img}

    def checkpoint(self, name: str) -> Any:
        file = self.data_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
        return Engine(file, self.note, self.word_embeddings)

    @property
    def unet(self) -> Any:
        return self.load().forge_objects.unet.model.diffusion_model

    def notes_now(self) -> dict[str, str]:
        """What the next job's infotext will say of its texts."""
        return self.notes.last_extra_generation_params

    def note(self, text: str) -> None:
        self.notes_now()["TI"] = text

    def load(self) -> Any:
        if not hasattr(self.sd_model, "forge_objects"):
            self.sd_model = self.chosen
        return self.sd_model

    def modules(self) -> dict[str, ModuleType]:
        lacking = ("modules.lowvram", "modules.sd_hijack", "modules.sd_hijack_open_clip", "modules.sd_unet", "networks")
        found = {name: made for name, made in super().modules().items() if name not in lacking}
        data = lambda: SimpleNamespace(sd_model=self.sd_model, forge_loading_parameters={})  # noqa: E731
        return {
            **found,
            "modules.sd_models": module({"model_data": data}, forge_model_reload=self.load),
            "backend.memory_management": module(free_memory=lambda *args: None),
            "backend.args": module(dynamic_args=self.notes),
            "modules_forge.main_thread": module(last_exception=None),
        }


class ReForge(Forge):
    """reForge and Forge Classic: the model is there from the start, and a thread of its own forgets what it raises."""

    calls_twice = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.load()

    def modules(self) -> dict[str, ModuleType]:
        found = super().modules()
        del found["backend.args"]
        self.notes.embedding_db = SimpleNamespace(word_embeddings=self.word_embeddings)
        found["modules.sd_hijack"] = module(model_hijack=self.notes)
        found["ldm_patched.modules.model_management"] = found.pop("backend.memory_management")
        return {**found, "modules_forge.main_thread": module()}

    def checkpoint(self, name: str) -> Any:
        made = super().checkpoint(name)
        del made.text_processing_engine_g
        return made

    def notes_now(self) -> dict[str, str]:
        return self.notes.extra_generation_params

    def shown(self, p: Job) -> str:
        try:
            return html.escape(self.process(p).comments)
        except Exception:  # printed, and None is what the page gets
            return "<div class='error'>TypeError: &#x27;NoneType&#x27; object is not iterable</div>"


class ForgeJob(Job):
    def setup_prompts(self) -> None:
        self.webui.load()
        super().setup_prompts()

    def next_batch(self, number: int) -> None:
        self.reset()
        super().next_batch(number)

    def reset(self) -> None:
        model = self.webui.load()
        model.forge_objects = model.forge_objects_original.shallow_copy()

    def setup_conds(self) -> None:
        super().setup_conds()
        self.uc = None if self.cfg_scale == 1 else self.uc

    @torch.inference_mode()
    def sample(self, conditioning: Any, unconditional_conditioning: Any) -> Tensor:
        return super().sample(conditioning, unconditional_conditioning)

    def new_sampler(self) -> ForgeSampler:
        return ForgeSampler(self.sampler_name, self)


@dataclass(eq=False)
class ForgeTxt2Img(ForgeJob, Txt2Img):
    def before_hires(self, **given: Any) -> None:
        """Forge calls scripts once more, on objects that it replaces right after."""
        if self.webui.calls_twice:
            self.scripts.process_before_every_sampling(p=self, **given)
            self.reset()


@dataclass(eq=False)
class ForgeImg2Img(ForgeJob, Img2Img):
    pass
