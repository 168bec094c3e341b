"""The panel: an accordion that is the on/off switch, what is wrong (if anything), and a tab for each unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from modules.infotext_utils import PasteField
from modules.ui_components import InputAccordion

from ...reference.analysis import Progress
from ...units.errors import explained
from ..arguments import NO_UNIT
from ..hosts.folders import adapter_folders, encoder_folders, unit_count
from ..hosts.webui_host import WebUIHost
from .pasting import control_target, lost_target, switch_target, travels
from .progress import with_progress
from .readiness import Readiness, download_all, readiness
from .unit_controls import UnitControls, UnitTab

WITHOUT_AN_ADAPTER = (
    "Without an adapter: set Source, under More pictures, to swapped self-attention. It needs no other file than the "
    "checkpoint."
)


class Panel:
    """Builds the components in the current gradio context; afterwards they are plain attributes."""

    def __init__(self, elem_id: Callable[[str], str], host: WebUIHost) -> None:
        self._elem_id = elem_id
        self._host = host
        self._slots = [gr.State(NO_UNIT) for _ in range(unit_count() + 1)]
        with InputAccordion(False, label="InstantStyle", elem_id=elem_id("enabled")) as self._switch:
            self._build_status()
            self._lost = gr.HTML(visible=False, elem_id=elem_id("lost"))
            self._units = self._build_units()

    @property
    def components(self) -> list[Any]:
        """The script's arguments, in the order of `ui.arguments`."""
        return [*self._slots, self._switch, *(component for unit in self._units for component in unit.in_order)]

    @property
    def paste_fields(self) -> list[PasteField]:
        """What an infotext sets."""
        pictures, fields = self._host.picture_store, [PasteField(self._switch, switch_target())]
        for number, unit in enumerate(self._units, start=1):
            for name, component in unit.by_name.items():
                fields.append(PasteField(component, control_target(number, name, pictures)))
        return [*fields, PasteField(self._lost, lost_target(len(self._units), pictures))]

    @property
    def paste_names(self) -> list[str]:
        """What travels from txt2img's panel to img2img's with "Send to"."""
        return [field.label for field in self.paste_fields if travels(field.label)]

    def _build_units(self) -> list[UnitControls]:
        numbers = range(1, unit_count() + 1)
        with gr.Tabs(elem_id=self._elem_id("units"), elem_classes=["instantstyle-units"]):
            return [self._build_unit(number) for number in numbers]

    def _build_unit(self, number: int) -> UnitControls:
        with gr.Tab(f"Reference {number}", elem_id=self._elem_id(f"unit{number}")):
            return UnitTab(number, self._elem_id, self._host).build()

    def _readiness(self) -> Readiness:
        """Asked while the page is built, with a checkpoint loading in another thread: no error may cost the panel."""
        try:
            return self._looked_at()
        except Exception as error:
            return Readiness((explained(error).message,), (), ())

    def _looked_at(self) -> Readiness:
        without = (WITHOUT_AN_ADAPTER,) if self._host.shows_references else ()
        return readiness(self._host.files, self._host.loaded_unet(), self._host.loaded_text_width(), without=without)

    def _build_status(self) -> None:
        now = self._readiness()
        status = gr.HTML(now.as_html(), elem_id=self._elem_id("status"))
        button = gr.Button(
            f"Download {now.button_label}", visible=bool(now.downloads), elem_id=self._elem_id("download"), size="sm"
        )
        outputs = [status, button]
        self._switch.change(fn=self._show, outputs=outputs, queue=False, show_progress=False)
        button.click(fn=with_progress(self._download), outputs=outputs)

    def _show(self, failure: str | None = None) -> list[Any]:
        now = self._readiness()
        return [now.as_html(failure), gr.update(visible=bool(now.downloads), value=f"Download {now.button_label}")]

    def _download(self, progress: Progress) -> list[Any]:
        folders = {"adapter": adapter_folders()[0], "encoder": encoder_folders()[0]}
        try:
            download_all(self._readiness().downloads, folders, progress)
        except Exception as error:
            return self._show(explained(error).message)
        return self._show()
