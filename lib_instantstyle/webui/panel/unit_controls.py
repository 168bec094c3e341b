"""The controls of one unit: which there are, and where each stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from modules.ui_components import ToolButton

from ...units.blocks import SDXL_BLOCKS, ldm_name
from ...units.groups import AUTO_ADAPTER, CONTENT_METHODS
from ...units.methods import ADAPTER, METHODS
from ...units.routing import PRESETS
from ..arguments import PANEL_VALUES, palette_after, strength_after
from ..hosts.webui_host import WebUIHost
from .brush import build_brush
from .content_analysis import ContentAnalysis
from .controls import Controls
from .folded import Folded
from .visibility import QUIET, hide_with_method, show_with_content, show_with_preset

METHOD_LABELS = {"subtract": "Subtract (paper)", "project": "Project", "auto": "Auto", "off": "Off"}
METHOD_CHOICES = [(METHOD_LABELS[name], name) for name in CONTENT_METHODS]
PRESET_CHOICES = [(preset.label, preset.name) for preset in PRESETS.values()]
FOLDED_GROUPS = {  # title, and the controls inside
    "reference": (
        "More pictures of the same style, crop, mask, another source",
        ("more_pictures", "crop", "combine", "image_weights", "image_mask", "method", "lora", "leak_guard", "palette"),
    ),
    "weight": (
        "Pictures to remove and to avoid; where and when the style acts",
        (
            *("content_image", "negative_image", "negative_noise", "content_renorm", "mask", "start", "end", "curve"),
            *("layout_curve", "passes", "fusion", "kv_scaling", "attention_guidance"),
        ),
    ),
}


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
        self._host = host
        self._controls = Controls(number, elem_id)
        self._analysis = ContentAnalysis(self._controls.id)
        self._parts: dict[str, Any] = {}  # the groups that controls hide with
        self._folded = {
            key: Folded(title, self._controls.id(f"more_{key}"), names) for key, (title, names) in FOLDED_GROUPS.items()
        }

    def build(self) -> UnitControls:
        with gr.Row(equal_height=False, elem_classes=["instantstyle-unit"]):
            with gr.Column(scale=2, min_width=240):
                self._pictures()
            with gr.Column(scale=3, min_width=320):
                with gr.Column() as self._parts["preset"]:
                    self._routing()
                with gr.Column() as self._parts["content_prompt"]:
                    removal = self._content()
                self._finer()
                self._adapter()
        made = self._controls.made
        self._analysis.wire(made)
        hide_with_method(made["method"], {**made, **self._parts})
        show_with_content(removal, made)
        for group in self._folded.values():
            group.wire(made)
        return UnitControls(made)

    def _pictures(self) -> None:
        on = self._controls
        on.picture("image", height=260)
        with self._folded["reference"].open():
            files = gr.File(
                file_count="multiple",
                file_types=["image"],
                type="binary",
                label="Combined with the picture above into one style",
                elem_id=on.id("more_pictures"),
            )
            on.add("more_pictures", files)
            with gr.Row():
                on.choice("crop")
                on.choice("combine")
            on.text("image_weights", "1, 0.5")
            on.picture("image_mask", height=160)
            method = on.radio("method", self._sources())
            on.dropdown("lora", self._lora_choices(), visible=False)
            on.checkbox("leak_guard", visible=False)
            _follow(method, on.slider("palette"), ADAPTER, palette_after)
        on.checkbox("enabled")

    def _sources(self) -> list[tuple[str, str]]:
        """The methods that this WebUI can do."""
        methods = (one for one in METHODS.values() if self._host.shows_references or not one.blocks)
        return [(method.label, method.name) for method in methods]

    def _routing(self) -> None:
        on = self._controls
        preset = on.radio("preset", PRESET_CHOICES)
        with gr.Row():
            on.slider("weight")
            layout = on.slider("layout_weight", visible=False)
            push = on.slider("push_weight", visible=False)
        with gr.Column(visible=False, elem_id=on.id("custom")) as custom:
            self._block_picker(on.text("blocks", _blocks_example(), lines=3))
        show_with_preset(preset, layout, push, custom)

    def _block_picker(self, blocks: Any) -> None:
        names = [f"{name} = {ldm_name(name)}" for name in SDXL_BLOCKS]
        elem_id = self._controls.id("block_picker")
        picker = gr.Dropdown(label="Add a block", choices=["", *names], value="", elem_id=elem_id)
        picker.do_not_save_to_config = True
        picker.input(
            fn=lambda text, names: (_with_block(text, names), ""),
            inputs=[blocks, picker],
            outputs=[blocks, picker],
            **QUIET,
        )

    def _content(self) -> Any:
        """What is to go, in words. Gives the group with strength and method, which is there with something to go."""
        on = self._controls
        on.text("content_prompt", "a rabbit, a forest")
        self._analysis.build()
        with gr.Column(visible=False, elem_id=on.id("removal")) as removal:
            strength = on.slider("content_scale")
            method = on.radio("content_method", METHOD_CHOICES)
        _follow(method, strength, "subtract", strength_after)
        return removal

    def _finer(self) -> None:
        """What few pictures need: what to stay away from, in which region and steps, how strongly, and joined how."""
        on = self._controls
        with self._folded["weight"].open():
            with gr.Row():
                for name in ("content_image", "negative_image"):
                    on.picture(name, height=160)
            on.slider("negative_noise")
            on.checkbox("content_renorm")
            with gr.Row():
                for name in ("start", "end"):
                    on.slider(name, step=0.01)
            with gr.Row():
                for name in ("curve", "layout_curve"):
                    on.curve(name)
            with gr.Row():
                for name in ("passes", "fusion", "kv_scaling"):
                    on.choice(name)
            on.slider("attention_guidance")
            region = on.picture("mask", height=160)
            self._parts["brush"] = build_brush(on.id, region)

    def _adapter(self) -> None:
        on = self._controls
        with gr.Row():
            adapter = on.dropdown("adapter", self._adapter_choices())
            refresh = ToolButton("🔄", elem_id=on.id("refresh"), tooltip="Refresh the lists of adapters and LoRAs")
        refresh.click(fn=self._refreshed, outputs=[adapter, on.made["lora"]], queue=False)

    def _refreshed(self) -> tuple[Any, Any]:
        return gr.update(choices=self._adapter_choices()), gr.update(choices=self._lora_choices())

    def _adapter_choices(self) -> list[str]:
        return [AUTO_ADAPTER, *(info.name for info in self._host.files.adapters.usable())]

    def _lora_choices(self) -> list[str]:
        return ["", *self._host.files.loras.names()]


def _follow(method: Any, strength: Any, at_first: str, after: Callable[[str, str, float], float]) -> None:
    """Have a strength that was left alone follow the method: `after` is of the method, the one before, the strength."""
    before = gr.State(at_first)
    method.input(  # not `change`, which pasting sets off, too
        fn=lambda chosen, before, strength: (after(chosen, before, strength), chosen),
        inputs=[method, before, strength],
        outputs=[strength, before],
        **QUIET,
    )


def _with_block(text: str, names: str) -> str:
    """The custom blocks with one more, given by both of its names; as they are for none."""
    return f"{text.rstrip()}\n{names.split()[0]}: 1.0".lstrip() if names else text


def _blocks_example() -> str:
    return f"One per line, for example\n{PRESETS['style'].weighted[0]}: 1.0\n{PRESETS['layout'].weighted[0]}: 0.4"
