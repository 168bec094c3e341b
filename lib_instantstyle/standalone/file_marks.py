"""What a checkpoint file says of itself by the names of empty tensors: that it predicts v, and up to which noise."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ..files.tensor_files import open_tensors
from ..units.errors import IncompatibleModelError

V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"  # AUTOMATIC1111 (pull request 16567) and ComfyUI look for the same


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
            f"{path.name} says that it predicts v; the {type(scheduler).__name__} of its description has no "
            f"{', '.join(lacking)}. Give a description with an EulerDiscreteScheduler, like SDXL's own."
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
