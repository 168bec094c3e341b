"""Opening SDXL models with diffusers: a checkpoint file, a folder, or a Hub id; the network only for the last.

diffusers is imported here and nowhere else, and only when a model is opened.
"""

from __future__ import annotations

import inspect
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files.tensor_files import SUFFIXES, open_tensors
from ..units.errors import IncompatibleModelError, InstantStyleError

SDXL_CONFIG = "stabilityai/stable-diffusion-xl-base-1.0"  # whose configuration and tokenizers a checkpoint file lacks
# Names of empty tensors in a checkpoint file; AUTOMATIC1111 (pull request 16567) and ComfyUI look for the same.
V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, and what describes it: a diffusers folder or a Hub id, looked for beside the file if None."""

    path: Path
    config: str | Path | None = None
    option: str = "--model-config"  # by which a command is told the config


Model = str | Path | Checkpoint


def import_diffusers() -> Any:
    """diffusers. Raises InstantStyleError when it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise InstantStyleError(
            f"Generating without the WebUI needs diffusers, which cannot be imported ({error}). "
            "Install it: pip install -r requirements-standalone.txt"
        ) from None
    return diffusers


def quiet_libraries(bars: bool) -> None:
    """For a command line: only errors of diffusers and transformers are shown, and their loading bars if wanted."""
    from transformers.utils import logging

    for log in (import_diffusers().utils.logging, logging):
        log.set_verbosity_error()
        if not bars:
            log.disable_progress_bar()


def open_pipeline(model: Model, device: torch.device, dtype: torch.dtype, *, exact_vae: bool = False) -> Any:
    """A StableDiffusionXLPipeline on `device`; with `exact_vae` its VAE is read and kept in float32.

    Raises IncompatibleModelError with the reason when it cannot be.
    """
    cls = import_diffusers().StableDiffusionXLPipeline
    given: dict[str, Any] = {"torch_dtype": dtype, "add_watermarker": False}
    if exact_vae and dtype != torch.float32:
        given["vae"] = _exact_vae(model)
    source, path = _source_of(model)
    if path.is_file():
        pipe = _opened(path, cls.from_single_file, config=_description(model, path), **given)
        pipe.scheduler = obeying_marks(pipe.scheduler, path)
        return pipe.to(device)
    return _found(source, path, cls.from_pretrained, given).to(device)


def _exact_vae(model: Model) -> Any:
    """Read by itself, so that the rest never is in memory in float32."""
    cls = import_diffusers().AutoencoderKL
    given: dict[str, Any] = {"torch_dtype": torch.float32, "subfolder": "vae"}
    source, path = _source_of(model)
    if path.is_file():
        return _opened(path, cls.from_single_file, config=_description(model, path), **given)
    try:
        return _found(source, path, cls.from_pretrained, given)
    except IncompatibleModelError:
        if path.exists() or not is_hub_id(source):
            raise
        return _opened(source, cls.from_pretrained, variant="fp16", **given)  # where nothing else is published


def _source_of(model: Model) -> tuple[str | Path, Path]:
    """What was named, and the path that it may be."""
    source = model.path if isinstance(model, Checkpoint) else model
    return source, Path(source).expanduser()


def _description(model: Model, path: Path) -> str:
    return description_of(model if isinstance(model, Checkpoint) else Checkpoint(path))


def obeying_marks(scheduler: Any, path: Path) -> Any:
    """A scheduler as the marks of the checkpoint at `path` want it; the one that was described where there are none.

    Marks lie in the very file, so what describes it is believed in the rest only. Raises IncompatibleModelError when
    a scheduler of this class cannot obey.
    """
    wanted = _wanted({name.rpartition(".")[2] for name in open_tensors(path).shapes}, scheduler.config)
    if all(scheduler.config.get(name) == value for name, value in wanted.items()):
        return scheduler
    if lacking := [name for name in wanted if name not in inspect.signature(type(scheduler)).parameters]:
        raise IncompatibleModelError(
            f"{path.name} is marked as predicting v, but the {type(scheduler).__name__} of its configuration has no "
            f"{', '.join(lacking)}. Use a configuration with an EulerDiscreteScheduler, like SDXL's own."
        )
    return type(scheduler).from_config(scheduler.config, **wanted)


def _wanted(names: set[str], described: Any) -> dict[str, Any]:
    if V_PREDICTION not in names:
        return {}
    wanted: dict[str, Any] = {"prediction_type": "v_prediction"}
    if ZERO_SNR in names and not described.get("rescale_betas_zero_snr"):
        # The last timestep, of pure noise, is where sampling has to begin (arXiv:2305.08891, table 2).
        wanted |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return wanted


def open_controlnet(model: str | Path, device: torch.device, dtype: torch.dtype) -> Any:
    """A ControlNetModel on `device`, from a folder, a file in such a folder, a checkpoint file, or a Hub id."""
    cls = import_diffusers().ControlNetModel
    path = Path(model).expanduser()
    if path.is_file() and not (path.parent / "config.json").is_file():
        config = _cached("diffusers/controlnet-canny-sdxl-1.0", "config.json")
        if config is None:
            raise IncompatibleModelError(
                f"A ControlNet file needs its config.json beside it; {path.parent} has none. "
                "Give a folder or a Hub id like diffusers/controlnet-canny-sdxl-1.0.",
                "controlnet",
            )
        return _opened(path, cls.from_single_file, config=str(config), torch_dtype=dtype).to(device)
    if path.is_file():
        model, path = path.parent, path.parent
    return _found(model, path, cls.from_pretrained, {"torch_dtype": dtype}).to(device)


def variant_of(pipe: Any, name: str, controlnet: Any = None) -> Any:
    """Another SDXL pipeline class of diffusers on the same models: nothing is copied, moved or converted."""
    cls = getattr(import_diffusers(), name)
    parts = {part: model for part, model in pipe.components.items() if part != "controlnet"}
    if controlnet is not None:
        parts["controlnet"] = controlnet
    variant = cls(
        **parts,
        force_zeros_for_empty_prompt=pipe.config.force_zeros_for_empty_prompt,
        add_watermarker=getattr(pipe, "watermark", None) is not None,
    )
    variant.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
    return variant


def is_hub_id(model: str | Path) -> bool:
    """Whether the name of something that is not here may be a Hub repository's, like owner/name."""
    return _HUB_ID.fullmatch(str(model)) is not None and Path(model).suffix.lower() not in SUFFIXES


def _found(model: str | Path, path: Path, load: Any, given: dict[str, Any]) -> Any:
    """A model from a local folder, which never asks the network, or from the Hub, in half-size files if it has them."""
    if path.is_dir():
        return _opened(path, load, local_files_only=True, **_variant_in(path), **given)
    if not is_hub_id(model):
        raise IncompatibleModelError(
            f"There is no file or folder {model}, and it is not a Hub id like {SDXL_CONFIG}. Check the path."
        )
    if given["torch_dtype"] == torch.float16:
        with suppress(IncompatibleModelError):
            return _opened(model, load, variant="fp16", **given)
    return _opened(model, load, **given)


def _variant_in(folder: Path) -> dict[str, str]:
    files = list(folder.rglob("*.safetensors"))
    halves = [file for file in files if file.name.endswith(".fp16.safetensors")]
    return {"variant": "fp16"} if halves and len(halves) == len(files) else {}


def description_of(checkpoint: Checkpoint) -> str:
    """The folder or Hub id with configuration and tokenizers for a checkpoint file."""
    path, config = checkpoint.path.expanduser(), checkpoint.config
    if config is not None:
        return str(Path(config).expanduser()) if Path(config).expanduser().is_dir() else str(config)
    beside = (path.with_suffix(""), path.parent, _cached(SDXL_CONFIG, "model_index.json"))
    found = next((folder for folder in beside if folder and (folder / "model_index.json").is_file()), None)
    if found is None:
        raise IncompatibleModelError(
            f"A checkpoint file contains no configuration and no tokenizers; none were found beside {path.name} or in "
            f"the Hub cache. Use {checkpoint.option} {SDXL_CONFIG} to fetch them (5 MB), or name a diffusers folder "
            "with them."
        )
    return str(found)


def _cached(repository: str, file: str) -> Path | None:
    """The folder of a Hub repository's files on this machine, or None; never asks the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found).parent if isinstance(found, str) else None


def _opened(model: str | Path, load: Any, **arguments: Any) -> Any:
    source = str(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that older releases need
            return load(source, **arguments)
    except (torch.cuda.OutOfMemoryError, InstantStyleError):
        raise
    except Exception as error:  # diffusers, transformers, the Hub and torch each have their own
        reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
        raise IncompatibleModelError(f"{source} cannot be opened as an SDXL model: {reason}") from error
