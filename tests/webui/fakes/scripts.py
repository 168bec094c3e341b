"""modules/scripts.py and script_loading.py: scripts, and the runner that swallows what they raise."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .callbacks import Swallowed

ALWAYS_VISIBLE = object()


@dataclass
class PostSampleArgs:
    samples: Any


@dataclass
class PostprocessImageArgs:
    image: Any


@dataclass(frozen=True)
class ScriptClassData:
    script_class: type[Script]
    path: str
    module: ModuleType


class Script:
    """What the WebUI's scripts derive from: its callbacks do nothing."""

    filename = name = ""
    args_from = args_to = 0
    is_img2img = alwayson = False
    infotext_fields: list[Any] | None = None
    paste_field_names: list[str] | None = None

    def title(self) -> str:
        raise NotImplementedError

    def show(self, is_img2img: bool) -> object:
        return True

    def ui(self, is_img2img: bool) -> list[Any] | None:
        return None

    def elem_id(self, item_id: str) -> str:
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        return f"script_{'img2img' if self.is_img2img else 'txt2img'}_{title}_{item_id}"

    def before_process(self, p: Any, *args: Any) -> None: ...
    def process(self, p: Any, *args: Any) -> None: ...
    def before_hr(self, p: Any, *args: Any) -> None: ...
    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None: ...
    def post_sample(self, p: Any, ps: PostSampleArgs, *args: Any) -> None: ...
    def postprocess_image(self, p: Any, pp: PostprocessImageArgs, *args: Any) -> None: ...
    def postprocess(self, p: Any, processed: Any, *args: Any) -> None: ...


def load_module(path: Path) -> ModuleType:
    """Execute a script's file the WebUI's way: by path, under its file name, outside sys.modules."""
    spec = importlib.util.spec_from_file_location(path.name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script_classes(module: ModuleType, path: str) -> list[ScriptClassData]:
    """Every Script in a module's namespace, imported ones too."""
    found = [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, Script)]
    return [ScriptClassData(one, path, module) for one in found]


class ScriptRunner:
    """The scripts of one tab, in their order."""

    def __init__(self, known: Sequence[ScriptClassData], is_img2img: bool, swallowed: Swallowed) -> None:
        self.alwayson_scripts: list[Script] = []
        self.inputs: list[Any] = [None]  # the first is the dropdown of selectable scripts
        self.infotext_fields: list[Any] = []
        self.paste_field_names: list[str] = []
        self._swallowed = swallowed
        for data in known:
            self._add(data, is_img2img)

    def _add(self, data: ScriptClassData, is_img2img: bool) -> None:
        script = data.script_class()
        script.filename, script.is_img2img = data.path, is_img2img
        if script.show(is_img2img) is ALWAYS_VISIBLE:
            script.alwayson = True
            self.alwayson_scripts.append(script)

    def setup_ui(self) -> None:
        """Build every script's controls in the current gradio context; a script that fails has none."""
        for script in self.alwayson_scripts:
            script.args_from = script.args_to = len(self.inputs)
            self._swallowed.guarded(self._build, script)

    def _build(self, script: Script) -> None:
        controls = script.ui(script.is_img2img)
        script.name = script.title().lower()
        if controls is None:
            return
        self.infotext_fields += script.infotext_fields or []
        self.paste_field_names += script.paste_field_names or []
        self.inputs += controls
        script.args_to = len(self.inputs)

    def before_process(self, p: Any) -> None:
        self._each("before_process", p)

    def process(self, p: Any) -> None:
        self._each("process", p)

    def before_hr(self, p: Any) -> None:
        self._each("before_hr", p)

    def process_before_every_sampling(self, p: Any, **kwargs: Any) -> None:
        self._each("process_before_every_sampling", p, **kwargs)

    def post_sample(self, p: Any, ps: PostSampleArgs) -> None:
        self._each("post_sample", p, ps)

    def postprocess_image(self, p: Any, pp: PostprocessImageArgs) -> None:
        self._each("postprocess_image", p, pp)

    def postprocess(self, p: Any, processed: Any) -> None:
        self._each("postprocess", p, processed)

    def _each(self, method: str, p: Any, *given: Any, **kwargs: Any) -> None:
        for script in self.alwayson_scripts:
            args = p.script_args[script.args_from : script.args_to]
            self._swallowed.guarded(getattr(script, method), p, *given, *args, **kwargs)
