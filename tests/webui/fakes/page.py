"""A person at the page: sets controls and presses buttons; gradio itself carries the values to the handlers and back.

Like a browser it keeps each component's properties, applies what handlers answer, and lets a control whose value has
changed say so, whoever changed it.
"""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import EventData
from PIL import Image

GRADIO = int(gr.__version__.partition(".")[0])


class Page:
    """One browser tab on the WebUI. Controls are named by their elem_id, ours without `script_<tab>_instantstyle_`."""

    def __init__(self, demo: Any, folder: Path, tab: str = "txt2img") -> None:
        self._demo, self._folder, self._tab = demo, folder, tab
        config = demo.get_config_file()
        self._dependencies = list(enumerate(config["dependencies"]))
        self._props: dict[int, dict[str, Any]] = {one["id"]: dict(one["props"]) for one in config["components"]}
        self._ids = {props["elem_id"]: key for key, props in self._props.items() if props.get("elem_id")}
        self._state = _session(demo)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """The properties of a control as the page has them now."""
        return self._props[self._id(name)]

    def has(self, name: str) -> bool:
        return f"script_{self._tab}_instantstyle_{name}" in self._ids

    def value(self, name: str) -> Any:
        return self[name].get("value")

    def press(self, name: str) -> None:
        self._fire(self._id(name), "click")

    def enter(self, name: str, value: Any) -> None:
        """Choose or type a value."""
        self._set(self._id(name), value)
        self._fire(self._id(name), "input")

    def leave(self, name: str) -> None:
        """Move on from a text field."""
        self._fire(self._id(name), "blur")

    def pick(self, name: str, word: str) -> None:
        """Click one of a group of checkboxes."""
        group = self._id(name)
        picked = word not in (self.value(name) or [])
        values = [*(self.value(name) or []), word] if picked else [one for one in self.value(name) if one != word]
        self._set(group, values)
        self._fire(group, "select", {"value": word, "selected": picked, "index": 0})

    def drop(self, name: str, *pictures: Image.Image) -> None:
        """Upload pictures into an image or a file control."""
        paths = [self._folder / f"upload-{name}-{number}.png" for number in range(len(pictures))]
        for picture, path in zip(pictures, paths):
            picture.save(path)
        single = self._demo.blocks[self._id(name)].get_block_name() == "image"
        self._set(self._id(name), _image(paths[0]) if single else [_file(path) for path in paths])

    def paint(self, name: str, picture: Image.Image, layer: Image.Image) -> None:
        """Upload a picture into a control with gradio 3's brush, and paint a layer over it."""
        sent = []
        for part, image in (("image", picture), ("mask", layer)):
            path = self._folder / f"{part}-{name}.png"
            image.save(path)
            sent.append((part, _image(path)))
        self._set(self._id(name), dict(sent))

    def picture(self, name: str) -> Image.Image:
        """What an image control shows."""
        value = self.value(name)
        if GRADIO < 4:
            return Image.open(io.BytesIO(base64.b64decode(value.partition(",")[2])))
        return Image.open(value["path"])

    def _id(self, name: str) -> int:
        ours = f"script_{self._tab}_instantstyle_{name}"
        return self._ids[ours if ours in self._ids else name]

    def _set(self, component: int, value: Any) -> None:
        if self._props[component].get("value") != value:
            self._props[component]["value"] = value
            self._fire(component, "change")

    def _fire(self, component: int, event: str, data: Any = None) -> None:
        for index, dependency in self._dependencies:
            if (component, event) in _triggers(dependency):
                self._run(index, EventData(self._demo.blocks[component], data))

    def _run(self, index: int, event: EventData) -> None:
        dependency = self._dependencies[index][1]
        if dependency["backend_fn"]:
            inputs = [self._props[one].get("value") for one in dependency["inputs"]]
            call = self._demo.process_api(index, inputs, self._state, event_data=event)
            answer = asyncio.run(call)["data"]
            for component, update in zip(dependency["outputs"], answer):
                self._apply(component, update)
        for follower, after in self._dependencies:
            if after.get("trigger_after") == index:
                self._run(follower, event)

    def _apply(self, component: int, update: Any) -> None:
        if not isinstance(update, dict) or update.get("__type__") != "update":
            update = {"value": update}
        self._props[component] |= {key: new for key, new in update.items() if key not in ("__type__", "value")}
        if "value" in update:
            self._set(component, update["value"])


def _triggers(dependency: dict[str, Any]) -> list[tuple[int, str]]:
    """The components and events that set a handler off."""
    if GRADIO < 4:
        return [(target, dependency["trigger"]) for target in dependency["targets"]]
    return [tuple(target) for target in dependency["targets"]]


def _session(demo: Any) -> Any:
    """What gradio keeps of `gr.State` for each browser."""
    if GRADIO < 4:
        return {key: block.value for key, block in demo.blocks.items() if getattr(block, "stateful", False)}
    from gradio.state_holder import SessionState

    return SessionState(demo)


def _image(path: Path) -> Any:
    """What the browser sends of an uploaded picture."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if GRADIO < 4 else _file(path)


def _file(path: Path) -> dict[str, Any]:
    if GRADIO < 4:
        return {"name": str(path), "orig_name": path.name, "is_file": True, "data": None, "size": path.stat().st_size}
    return {
        "path": str(path),
        "orig_name": path.name,
        "size": path.stat().st_size,
        "meta": {"_type": "gradio.FileData"},
    }
