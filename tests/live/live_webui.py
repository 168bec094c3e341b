"""The tester's WebUI, started inside the test process, and the jobs that tests give it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from live_condition import Condition
from live_kind import kind, prepare, unet_of
from live_recording import Pass, img2img_is_seeded, recording
from live_world import as_base64, picture
from torch import nn

# Nothing is fetched and nothing asked.
ARGUMENTS = (
    *("--api", "--skip-version-check", "--no-download-sd-model", "--no-hashing"),
    "--disable-console-progressbars",
)
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
SETTINGS = {
    "prompt": "a cat",
    "negative_prompt": "",
    "seed": 1,
    "steps": 2,
    "width": 96,
    "height": 64,
    "sampler_name": "Euler",
    "cfg_scale": 5,
}
IMG2IMG = {"init_images": [as_base64(picture(7, (96, 64)))], "denoising_strength": 0.7}
NOTHING = {"text": "Internal Server Error"}
OUR_HOOKS = "instantstyle_"


@dataclass
class Job:
    """What became of one request."""

    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    passes: list[Pass] = field(default_factory=list)

    @property
    def infotext(self) -> str:
        return json.loads(self.answer["info"])["infotexts"][0]

    def says(self, words: str) -> bool:
        """Whether the answer has these words; but of an exception in the UNet, a fork that fails to print it tells
        nothing."""
        return words in str(self.answer) or (kind().is_fork and self.answer == NOTHING)

    def same_as(self, other: Job) -> bool:
        """Whether both sampled, and every pass of one is bit-identical to that of the other."""
        alike = (own.same_as(others) for own, others in zip(self.passes, other.passes))
        return 0 < len(self.passes) == len(other.passes) and all(alike)


class LiveWebUI:
    """A started WebUI with its HTTP API."""

    def __init__(self) -> None:
        from modules import initialize

        with _own_interrupt_key():
            initialize.imports()
            initialize.initialize()
        self._serve()

    def _serve(self) -> None:
        """As webui.py does, short of opening a port."""
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        from modules import call_queue, script_callbacks
        from modules.api.api import Api

        app = FastAPI()
        script_callbacks.before_ui_callback()
        Api(app, call_queue.queue_lock)
        script_callbacks.app_started_callback(None, app)
        self.client = TestClient(app, raise_server_exceptions=False)

    def reload_ui(self) -> None:
        """What the "Reload UI" button leads to in webui.py."""
        from modules import initialize, script_callbacks

        script_callbacks.app_reload_callback()
        script_callbacks.script_unloaded_callback()
        initialize.initialize_rest(reload_script_modules=True)
        self._serve()

    @property
    def unet(self) -> nn.Module:
        from modules import shared

        return unet_of(shared.sd_model)

    def txt2img(self, *units: Any, **settings: Any) -> Job:
        return self.post("txt2img", units, settings)

    def img2img(self, *units: Any, **settings: Any) -> Job:
        return self.post("img2img", units, settings)

    def post(self, tab: str, units: tuple[Any, ...], settings: dict[str, Any]) -> Job:
        """Run one job; with no units our script is not mentioned at all.

        Beside the API's own fields, `settings` may hold `scripts`, more always-on scripts, and `options`, settings of
        the WebUI that hold for this job. (The API's override_settings outlive it when config.json lacks them.)
        """
        from modules import shared

        settings = {**(IMG2IMG if tab == "img2img" else {}), **settings}
        scripts, options = settings.pop("scripts", {}), settings.pop("options", {})
        if units:
            scripts = {**scripts, "InstantStyle": {"args": list(units)}}
        body = {**SETTINGS, **settings, "alwayson_scripts": scripts}
        job = Job()
        with recording(job.passes), img2img_is_seeded(), mock.patch.dict(shared.opts.data, options):
            response = self.client.post(f"/sdapi/v1/{tab}", json=body)
        job.status = response.status_code
        plain = not response.headers.get("content-type", "").startswith("application/json")
        job.answer = {"text": response.text} if plain else response.json()
        return job

    def hooks(self) -> list[str]:
        """The names of our hooks on any module of the loaded checkpoint."""
        from modules import shared

        models = [model for model in (shared.sd_model, self.unet) if isinstance(model, nn.Module)]
        return [name for model in models for module in model.modules() for name in _hook_names(module)]


def start(folder: Path, data: Path, condition: Condition, patch: pytest.MonkeyPatch) -> LiveWebUI:
    """Start the WebUI at `folder` on the data folder `data`."""
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
    patch.delenv("COMMANDLINE_ARGS", raising=False)
    patch.setattr("sys.argv", ["webui.py", "--data-dir", str(data), *ARGUMENTS, *condition.arguments])
    patch.syspath_prepend(str(folder))
    patch.chdir(folder)
    prepare(data / "forks")
    torch.set_num_threads(1)  # tensors this small only wait for one another
    return LiveWebUI()


@contextmanager
def _own_interrupt_key() -> Iterator[None]:
    """The WebUI makes Ctrl-C end the process at once, as if all were well; pytest wants it back."""
    kept = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)


def _hook_names(module: nn.Module) -> list[str]:
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    names = [getattr(hook, "__name__", "") for hook in hooks]
    return [name for name in names if name.startswith(OUR_HOOKS)]
