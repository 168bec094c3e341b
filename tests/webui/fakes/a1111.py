"""AUTOMATIC1111's WebUI 1.10.1 with InstantStyle as its extension."""

from __future__ import annotations

import contextlib
import html
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gradio as gr
import torch
from fastapi import Body, FastAPI

from ...tiny import encoded
from . import infotext, sampling, shared, xyz_grid
from .callbacks import ScriptCallbacks, Swallowed
from .checkpoint import Checkpoint
from .components import InputAccordion, ToolButton, not_served, tooltips
from .loading import WING, installed, module
from .page import Page
from .processing import Img2Img, Job, Processed, Txt2Img, process_images
from .scripts import ALWAYS_VISIBLE, Script, ScriptClassData, ScriptRunner, load_module, script_classes

ROOT, OURS = Path(__file__).parents[3], "instantstyle.py"
CALLBACKS = ("cfg_denoiser", "cfg_after_cfg", "script_unloaded", "before_ui", "ui_settings", "app_started")
KINDS: dict[str, type[Job]] = {"txt2img": Txt2Img, "img2img": Img2Img}
OPTIONS = {"batch_cond_uncond": True, "img2img_fix_steps": False, "return_grid": True, "emphasis": "Original"}
FLAGS = {"api": True, "nowebui": False, "api_auth": None, "no_half": False, "no_gradio_queue": False}


class A1111:
    """One WebUI process: `with A1111(…).running() as web`. Then its tabs, API and settings are there."""

    def __init__(self, models: Path, data: Path, **flags: Any) -> None:
        self.models_path, self.data_path = models, data
        self.swallowed = Swallowed()
        self.callbacks = ScriptCallbacks(self.swallowed)
        self.state = shared.State()
        self.opts = shared.Options(**OPTIONS)
        self.cmd_opts = SimpleNamespace(**{**FLAGS, **flags})
        self.queue_lock = threading.Lock()
        self.loaded_networks: list[object] = []
        self.word_embeddings: dict[str, Any] = {}
        self.sd_model: Any = self.checkpoint("sdxl.safetensors")
        self.scripts_data: list[ScriptClassData] = []
        self.runners: dict[str, ScriptRunner] = {}
        self._made: Processed | None = None
        self.kinds = KINDS

    def checkpoint(self, name: str) -> Any:
        """A checkpoint file and the model that was loaded from it."""
        file = self.data_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
        return Checkpoint(file, self.loaded_networks)

    @property
    def unet(self) -> Any:
        return self.sd_model.model.diffusion_model

    @contextmanager
    def running(self) -> Iterator[A1111]:
        """The WebUI, started: our script is loaded and the pages are built."""
        with installed(self.modules()), tooltips():
            self.start()
            try:
                yield self
            finally:
                self.callbacks.fire("script_unloaded")

    def start(self) -> None:
        """Execute the scripts and build the pages, as at every "Reload UI"."""
        self.scripts_data[:] = script_classes(load_module(ROOT / "scripts" / OURS), OURS)
        self.scripts_data.append(xyz_grid.loaded())
        self.callbacks.fire("ui_settings")
        self.callbacks.fire("before_ui")
        self.runners = {tab: ScriptRunner(self.scripts_data, tab == "img2img", self.swallowed) for tab in KINDS}
        with not_served():
            self._build_pages()

    def _build_pages(self) -> None:
        with gr.Blocks() as self.demo:
            for tab, runner in self.runners.items():
                self._build_tab(tab, runner)
            self._connect_send_to_img2img()
        if not self.cmd_opts.no_gradio_queue:
            self.demo.queue(64)

    def _build_tab(self, tab: str, runner: ScriptRunner) -> None:
        """Our panel, and what the WebUI has beside it: an infotext to paste, Generate, and what that shows."""
        runner.setup_ui()
        text, paste = gr.Textbox(elem_id=f"{tab}_prompt"), gr.Button(elem_id=f"{tab}_paste")
        fields = runner.infotext_fields
        paste.click(
            fn=lambda written: list(infotext.pasted(fields, written, self.swallowed).values()),
            inputs=[text],
            outputs=[component for component, _ in fields],
        )
        log, generate = gr.HTML(elem_id=f"html_log_{tab}"), gr.Button(elem_id=f"{tab}_generate")
        generate.click(fn=lambda *args: self.shown(self.job(*args, tab=tab)), inputs=runner.inputs[1:], outputs=[log])

    def _connect_send_to_img2img(self) -> None:
        names = self.runners["txt2img"].paste_field_names
        there, here = (
            [field for field, name in self.runners[tab].infotext_fields if name in names]
            for tab in ("img2img", "txt2img")
        )
        gr.Button(elem_id="send_to_img2img").click(fn=lambda *values: list(values), inputs=here, outputs=there)

    @property
    def axis_options(self) -> list[Any]:
        """Those that extensions have added to the X/Y/Z plot."""
        module = next(data.module for data in self.scripts_data if data.script_class is xyz_grid.XyzGrid)
        return [one for one in module.axis_options if one.label != "Steps"]

    def app(self) -> FastAPI:
        """The WebUI's HTTP server, started."""
        app = FastAPI()
        app.add_api_route("/sdapi/v1/txt2img", self._txt2img, methods=["POST"])
        self.callbacks.fire("app_started", self.demo, app)
        return app

    def _txt2img(self, body: Any = Body(...)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        """As api.py: scripts by title, whatever the capitals; arguments that are not sent have their defaults."""
        sent = {name.lower(): script for name, script in body.get("alwayson_scripts", {}).items()}
        p = self.job(*sent.get("instantstyle", {}).get("args", []))
        p.is_api = True
        made = self.process(p)
        return {"images": [encoded(image) for image in made.images], "infotexts": made.infotexts}

    def page(self, tab: str = "txt2img") -> Page:
        """This WebUI in a browser."""
        return Page(self.demo, self.data_path, tab)

    def reload_ui(self) -> None:
        self.callbacks.fire("script_unloaded")
        self.callbacks.clear()
        self.start()

    def add_neighbour(self, **callbacks: Callable[..., None]) -> None:
        """Another extension's always-on script, which runs after ours: `callback(p, …)` by its name."""
        methods: dict[str, Any] = {
            name: lambda self, *args, do=do, **kwargs: do(*args, **kwargs) for name, do in callbacks.items()
        }
        methods["title"] = lambda self: "Neighbour"
        for runner in self.runners.values():
            runner.alwayson_scripts.append(type("Neighbour", (Script,), methods)())

    def library(self, name: str) -> Any:
        """A module of our WebUI wing, as this process has it."""
        return sys.modules[f"{WING}.{name}"]

    def job(self, *args: Any, tab: str = "txt2img", **fields: Any) -> Any:
        """A job whose first arguments of our script are `args`; the others are as the panel has them at the start."""
        runner = self.runners[tab]
        values = [getattr(control, "value", None) for control in runner.inputs]
        first = next(script.args_from for script in runner.alwayson_scripts if script.filename == OURS)
        values[first : first + len(args)] = args
        return self.kinds[tab](self, script_args=tuple(values), scripts=runner, **fields)

    def generate(self, *args: Any, tab: str = "txt2img", **fields: Any) -> Processed:
        """Make such a job's pictures; raises what ends it, as the WebUI's API does."""
        return self.process(self.job(*args, tab=tab, **fields))

    def process(self, p: Job) -> Processed:
        """Run a job in its turn."""
        with self.queue_lock, closing(p):
            self.state.begin("scripts_txt2img")
            try:
                self._made = process_images(p)
            finally:
                self.state.end()
        return self.made

    @property
    def made(self) -> Processed:
        """What the last job that came to its end has made."""
        assert self._made is not None
        return self._made

    def plain(self, **fields: Any) -> Processed:
        """The same without InstantStyle installed."""
        runner = ScriptRunner([], False, self.swallowed)
        return process_images(self.kinds["txt2img"](self, scripts=runner, **fields))

    def shown(self, p: Job) -> str:
        """What the page shows under the gallery after a job: its comments, or its error (call_queue.py)."""
        try:
            return html.escape(self.process(p).comments)
        except Exception as error:
            return f"<div class='error'>{html.escape(f'{type(error).__name__}: {error}')}</div>"

    def modules(self) -> dict[str, ModuleType]:
        """The WebUI's modules, by the names under which an extension imports them."""
        return {**self._running_modules(), **self._model_modules(), **self._page_modules()}

    def _running_modules(self) -> dict[str, ModuleType]:
        live = {"sd_model": lambda: self.sd_model}
        return {
            "modules.shared": module(
                live, opts=self.opts, cmd_opts=self.cmd_opts, state=self.state, OptionInfo=shared.OptionInfo
            ),
            "modules.script_callbacks": module(
                {}, **{f"on_{event}": self.callbacks.registrar(event) for event in CALLBACKS}
            ),
            "modules.scripts": module(Script=Script, AlwaysVisible=ALWAYS_VISIBLE, scripts_data=self.scripts_data),
            "modules.call_queue": module(queue_lock=self.queue_lock),
            "modules.fifo_lock": module(FIFOLock=threading.Lock),
            "modules.cache": module(cache_dir=str(self.data_path / "cache")),
            "modules.paths": module(
                models_path=str(self.models_path),
                data_path=str(self.data_path),
                extensions_dir=str(self.data_path / "extensions"),
            ),
        }

    def _model_modules(self) -> dict[str, ModuleType]:
        live = {"model_data": lambda: SimpleNamespace(sd_model=self.sd_model)}
        hijack = SimpleNamespace(
            embedding_db=SimpleNamespace(word_embeddings=self.word_embeddings), extra_generation_params={}, comments=[]
        )
        return {
            "modules.devices": module(
                device=torch.device("cpu"),
                autocast=contextlib.nullcontext,
                torch_gc=lambda: None,
                patch_module_list=[torch.nn.Linear],
            ),
            "modules.lowvram": module(is_enabled=lambda model: model.lowvram, send_everything_to_cpu=lambda: None),
            "modules.sd_hijack": module(model_hijack=hijack),
            "modules.sd_hijack_open_clip": module(
                tokenizer=SimpleNamespace(encode=lambda text: [ord(letter) % 97 for letter in text])
            ),
            "modules.sd_models": module(live),
            "modules.sd_unet": module(current_unet=None, current_unet_option=None, get_unet_option=lambda: None),
            "modules.sd_samplers": module(find_sampler_config=sampling.find_sampler_config),
            "modules.sd_samplers_common": module(
                setup_img2img_steps=sampling.setup_img2img_steps,
                images_tensor_to_samples=sampling.images_tensor_to_samples,
            ),
            "networks": module(loaded_networks=self.loaded_networks),
        }

    def _page_modules(self) -> dict[str, ModuleType]:
        return {
            "modules.infotext_utils": module(PasteField=infotext.PasteField),
            "modules.ui_components": module(InputAccordion=InputAccordion, ToolButton=ToolButton),
        }
