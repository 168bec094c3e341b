"""Which WebUI the tests are given, told by what lies in its folder, and what is different about it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One WebUI, or a family of them."""

    is_fork: bool = False  # of the Forge family: rows are told apart by marks in the conditions
    has_backend: bool = False  # Forge and Forge Neo; the others have ldm_patched
    packages: tuple[str, ...] = ()  # folders that its launcher puts on the path
    cpu: tuple[str, ...] = ()  # what has a fork compute on the CPU

    @property
    def hires(self) -> dict[str, Any]:
        """Settings of a hires job that each of them takes: Neo has no latent upscalers, and asks for its modules."""
        if not self.packages:
            return {"hr_upscaler": "Latent"}
        return {"hr_upscaler": "None", "hr_additional_modules": ["Use same choices"], "hr_cfg": 5}


@cache
def kind() -> Kind:
    """That of the WebUI to test; where there is none, AUTOMATIC1111's."""
    folder = os.environ.get("WEBUI_DIR")
    return kind_of(Path(folder).expanduser().resolve()) if folder else Kind()


def kind_of(folder: Path) -> Kind:
    if not (folder / "modules_forge").is_dir():
        return Kind()
    if not (folder / "backend").is_dir():
        return Kind(is_fork=True, cpu=("--always-cpu", "--attention-pytorch"))
    if (folder / "modules_forge/packages").is_dir():
        own = (str(folder / "modules_forge/packages"),)
        return Kind(True, True, own, ("--cpu", "--use-pytorch-cross-attention"))
    own = (str(folder / "repositories/huggingface_guess"),)
    return Kind(True, True, own, ("--always-cpu", "--attention-pytorch"))


def unet_of(model: Any) -> Any:
    """The UNet of a loaded checkpoint; None before there is one."""
    if not kind().is_fork:
        return model.model.diffusion_model
    return model.forge_objects.unet.model.diffusion_model if hasattr(model, "forge_objects") else None


def called_for_a_prediction() -> type:
    """The class whose `forward` is one model call."""
    if not kind().is_fork:
        from sgm.modules.diffusionmodules.wrappers import OpenAIWrapper

        return OpenAIWrapper
    if kind().has_backend:
        from backend.nn.unet import IntegratedUNet2DConditionModel

        return IntegratedUNet2DConditionModel
    from ldm_patched.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel


def prepare(tiny: Path, *, initialised: bool = True) -> None:
    """Before a fork is imported: let it take the tiny checkpoint for SDXL, and do what its launcher does first."""
    if not kind().is_fork:
        return
    from tiny_forks import teach

    os.environ.setdefault("IGNORE_CMD_ARGS_ERRORS", "1")  # they know other flags
    sys.path[1:1] = kind().packages
    teach(tiny)
    if not initialised:
        return
    from modules_forge.initialization import initialize_forge

    initialize_forge()
