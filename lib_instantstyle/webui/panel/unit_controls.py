"""The controls of one unit, made from the unit's schema: labels, bounds, choices and tooltips come from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import gradio as gr

from modules.ui_components import ToolButton

from ...units.blocks import SDXL_BLOCKS, ldm_name
from ...units.curves import NAMED, write_curve
from ...units.fields import Choice, Number
from ...units.groups import AUTO_ADAPTER, CONTENT_METHODS
from ...units.methods import ADAPTER, LORA, METHODS
from ...units.routing import CUSTOM, PRESETS
from ...units.unit import DEFAULTS, FIELDS, in_effect
from ..arguments import ONE_PICTURE, PANEL_VALUES, palette_after, strength_after
from ..hosts.webui_host import WebUIHost
from .content_analysis import ContentAnalysis
from .folded import Folded, show_with_content

STEP = 0.05
# By ui-config.json, which takes a choice's label for its value.
NOT_REMEMBERED = ("image", "more_pictures", "method", "lora", "adapter", "preset", "content_method", *ONE_PICTURE)
METHOD_LABELS = {"subtract": "Subtract (paper)", "project": "Project", "auto": "Auto", "off": "Off"}
UPLOAD_ONLY: dict[str, Any] = {"sources": ["upload"]} if "sources" in signature(gr.Image).parameters else {}  # gradio 4
# Controls that hide with a method, each with the field that it must have.
GOVERNED = {
    "image": "image",
    "more_pictures": "image",
    "crop": "crop",
    "combine": "combine",
    "image_weights": "image_weights",
    "mask": "mask",
    "image_mask": "image_mask",
    "lora": "lora",
    "leak_guard": "leak_guard",
    "content_prompt": "content_prompt",
    "fusion": "fusion",
    "kv_scaling": "kv_scaling",
    "adapter": "adapter",
    "preset": "preset",
    "curve": "curve",
    "layout_curve": "layout_curve",
    "palette": "palette",
}
PRESET_CHOICES = [(preset.label, preset.name) for preset in PRESETS.values()]
FOLDED_GROUPS = {  # title, and the controls inside
    "reference": (
        "More pictures of the same style, crop, mask, another source",
        ("more_pictures", "crop", "combine", "image_weights", "image_mask", "method", "lora", "leak_guard", "palette"),
    ),
    "content": (
        "More about content: pictures to remove and to avoid",
        ("content_image", "negative_image", "negative_noise", "content_renorm"),
    ),
    "weight": (
        "Where and when the style acts",
        ("mask", "start", "end", "curve", "layout_curve", "passes", "fusion", "kv_scaling"),
    ),
}
METHOD_CHOICES = [(METHOD_LABELS[name], name) for name in CONTENT_METHODS]


@dataclass(frozen=True)
class UnitControls:
    """All components of one tab, by the names of PANEL_VALUES."""

    by_name: dict[str, Any]

    @property
    def in_order(self) -> list[Any]:
        return [self.by_name[name] for name in PANEL_VALUES]


class UnitTab:
    """Builds the controls of unit `number` in the current gradio context and wires what depends on what."""

    def __init__(self, number: int, elem_id: Callable[[str], str], host: WebUIHost) -> None:
        self._number = number
        self._elem_id = elem_id
        self._host = host
        self._analysis = ContentAnalysis(self._id)
        self._made: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}  # the groups that controls hide with
        self._folded = {
            key: Folded(title, self._id(f"more_{key}"), names) for key, (title, names) in FOLDED_GROUPS.items()
        }

    def build(self) -> UnitControls:
        with gr.Row(equal_height=False, elem_classes=["instantstyle-unit"]):
            with gr.Column(scale=2, min_width=240):
                self._pictures()
            with gr.Column(scale=3, min_width=320):
                with gr.Column() as self._parts["preset"]:
                    self._routing()
                with gr.Column() as self._parts["content_prompt"]:
                    self._content()
                self._finer()
                self._adapter()
        self._analysis.wire(self._made)
        self._wire_source()
        for group in self._folded.values():
            group.wire(self._made)
        return UnitControls(self._made)

    def _add(self, name: str, component: Any) -> Any:
        component.do_not_save_to_config = self._number > 1 or name in NOT_REMEMBERED
        self._made[name] = component
        return component

    def _common(self, name: str) -> dict[str, Any]:
        """Arguments that every component of a field shares."""
        spec = FIELDS[name]
        return {"label": spec.label, "tooltip": spec.help, "elem_id": self._id(name)}

    def _id(self, name: str) -> str:
        return self._elem_id(f"unit{self._number}_{name}")

    def _slider(self, name: str, **extra: Any) -> Any:
        kind = FIELDS[name].kind
        assert isinstance(kind, Number)
        value = {"value": in_effect(name, DEFAULTS), "minimum": kind.low, "maximum": kind.high, "step": STEP}
        return self._add(name, gr.Slider(**{**self._common(name), **value, **extra}))

    def _pictures(self) -> None:
        self._picture("image", height=260)
        with self._folded["reference"].open():
            files = gr.File(
                file_count="multiple",
                file_types=["image"],
                type="binary",
                label="Combined with the picture above into one style",
                elem_id=self._id("more_pictures"),
            )
            self._add("more_pictures", files)
            with gr.Row():
                self._choice("crop")
                self._choice("combine")
            weights = gr.Textbox(**self._common("image_weights"), lines=1, value="", placeholder="1, 0.5")
            self._add("image_weights", weights)
            self._picture("image_mask", height=160)
            self._add("method", gr.Dropdown(**self._common("method"), choices=self._sources(), value=ADAPTER))
            lora = gr.Dropdown(**self._common("lora"), choices=self._lora_choices(), value="", visible=False)
            self._add("lora", lora)
            guard = gr.Checkbox(**self._common("leak_guard"), value=DEFAULTS["leak_guard"], visible=False)
            self._add("leak_guard", guard)
            self._slider("palette")
        self._add("enabled", gr.Checkbox(**self._common("enabled"), value=DEFAULTS["enabled"]))

    def _sources(self) -> list[tuple[str, str]]:
        """The methods that this WebUI can do."""
        methods = (one for one in METHODS.values() if self._host.shows_references or not one.blocks)
        return [(method.label, method.name) for method in methods]

    def _wire_source(self) -> None:
        """Controls that mean nothing with a method hide with it."""
        parts = [self._parts.get(name, self._made[name]) for name in GOVERNED]
        method = self._made["method"]
        method.change(fn=_governed_by, inputs=[method], outputs=parts, queue=False, show_progress=False)
        before, palette = gr.State(ADAPTER), self._made["palette"]
        method.input(  # not `change`, which pasting sets off, too
            fn=lambda chosen, before, palette: (palette_after(chosen, before, palette), chosen),
            inputs=[method, before, palette],
            outputs=[palette, before],
            queue=False,
            show_progress=False,
        )

    def _picture(self, name: str, height: int) -> None:
        self._add(name, gr.Image(**self._common(name), type="pil", image_mode=None, height=height, **UPLOAD_ONLY))

    def _routing(self) -> None:
        preset = self._add("preset", gr.Radio(**self._common("preset"), choices=PRESET_CHOICES, value="style"))
        with gr.Row():
            self._slider("weight")
            layout = self._slider("layout_weight", visible=False)
            push = self._slider("push_weight", visible=False)
        with gr.Column(visible=False, elem_id=self._id("custom")) as custom:
            blocks = gr.Textbox(**self._common("blocks"), lines=3, value="", placeholder=_blocks_example())
            self._add("blocks", blocks)
            self._block_picker(blocks)
        preset.change(
            fn=_shown_with,
            inputs=[preset],
            outputs=[layout, push, custom],
            queue=False,
            show_progress=False,
        )

    def _block_picker(self, blocks: Any) -> None:
        names = [f"{name} = {ldm_name(name)}" for name in SDXL_BLOCKS]
        picker = gr.Dropdown(label="Add a block", choices=["", *names], value="", elem_id=self._id("block_picker"))
        picker.do_not_save_to_config = True
        picker.input(
            fn=lambda text, names: (_with_block(text, names), ""),
            inputs=[blocks, picker],
            outputs=[blocks, picker],
            queue=False,
            show_progress=False,
        )

    def _content(self) -> None:
        prompt = gr.Textbox(**self._common("content_prompt"), lines=1, value="", placeholder="a rabbit, a forest")
        self._add("content_prompt", prompt)
        self._analysis.build()
        with gr.Column(visible=False, elem_id=self._id("removal")) as removal:
            strength = self._slider("content_scale")
            method = gr.Radio(**self._common("content_method"), choices=METHOD_CHOICES, value="subtract")
            self._add("content_method", method)
        before = gr.State("subtract")
        method.input(  # not `change`, which pasting sets off, too
            fn=lambda chosen, before, strength: (strength_after(chosen, before, strength), chosen),
            inputs=[method, before, strength],
            outputs=[strength, before],
            queue=False,
            show_progress=False,
        )
        with self._folded["content"].open():
            with gr.Row():
                for name in ("content_image", "negative_image"):
                    self._picture(name, height=160)
            self._slider("negative_noise")
            self._add("content_renorm", gr.Checkbox(**self._common("content_renorm"), value=False))
        show_with_content(removal, self._made)

    def _finer(self) -> None:
        """What few pictures need: in which region, in which steps, how strongly from step to step, and joined how."""
        with self._folded["weight"].open():
            with gr.Row():
                self._slider("start", step=0.01)
                self._slider("end", step=0.01)
            with gr.Row():
                for name in ("curve", "layout_curve"):
                    self._add(name, self._curve(name))
            with gr.Row():
                for name in ("passes", "fusion", "kv_scaling"):
                    self._choice(name)
            self._picture("mask", height=160)

    def _choice(self, name: str) -> None:
        kind = FIELDS[name].kind
        assert isinstance(kind, Choice)
        self._add(name, gr.Dropdown(**self._common(name), choices=list(kind.choices), value=DEFAULTS[name]))

    def _curve(self, name: str) -> Any:
        value = write_curve(DEFAULTS[name])
        choices = [*NAMED] if value else ["", *NAMED]  # of an empty value gradio 4 makes the first choice
        return gr.Dropdown(**self._common(name), choices=choices, value=value, allow_custom_value=True)

    def _adapter(self) -> None:
        with gr.Row():
            adapter = gr.Dropdown(**self._common("adapter"), choices=self._adapter_choices(), value=AUTO_ADAPTER)
            self._add("adapter", adapter)
            refresh = ToolButton("🔄", elem_id=self._id("refresh"), tooltip="Refresh the lists of adapters and LoRAs")
        refresh.click(fn=self._refreshed, outputs=[adapter, self._made["lora"]], queue=False)

    def _refreshed(self) -> tuple[Any, Any]:
        return gr.update(choices=self._adapter_choices()), gr.update(choices=self._lora_choices())

    def _adapter_choices(self) -> list[str]:
        return [AUTO_ADAPTER, *(info.name for info in self._host.files.adapters.usable())]

    def _lora_choices(self) -> list[str]:
        return ["", *self._host.files.loras.names()]


def _shown_with(chosen: str) -> tuple[Any, Any, Any]:
    """Which of layout weight, push weight and custom blocks a preset has."""
    preset = PRESETS[chosen]
    shown = (bool(preset.layout_weighted), preset.pushes, chosen == CUSTOM)
    return tuple(gr.update(visible=visible) for visible in shown)


def _with_block(text: str, names: str) -> str:
    """The custom blocks with one more, given by both of its names; as they are for none."""
    return f"{text.rstrip()}\n{names.split()[0]}: 1.0".lstrip() if names else text


def _governed_by(method: str) -> list[Any]:
    """Which of GOVERNED a method has."""
    return [_governed(name, field not in METHODS[method].lacks) for name, field in GOVERNED.items()]


def _governed(name: str, shown: bool) -> Any:
    """A LoRA's name goes when it is hidden: its tab is to carry no dot."""
    return gr.update(visible=False, value="") if name == LORA and not shown else gr.update(visible=shown)


def _blocks_example() -> str:
    return f"One per line, for example\n{PRESETS['style'].weighted[0]}: 1.0\n{PRESETS['layout'].weighted[0]}: 0.4"
