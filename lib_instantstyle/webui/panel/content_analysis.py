"""What the reference shows and how much of it is left: a button, words to pick, and the leak meter of one tab."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from ...reference.analysis import Progress
from ...units.errors import UnitError, explained
from ...units.unit import StyleUnit
from ..arguments import unit_to_analyse
from ..measuring import analyse_in_turn, analyst_if_free
from .leak_meter import busy_html, meter_html, problem_html
from .picked_words import picked_in, toggled
from .progress import with_progress

READ = (
    "image",
    "more_pictures",
    "adapter",
    "content_image",
    "crop",
    "image_mask",
)  # a change of these asks for a new analysis
STEERED = ("content_prompt", "content_scale", "content_method", "content_renorm")  # the meter follows these

WORDS = 18  # to pick from: five or six rows in the panel
QUIET = {"queue": False, "show_progress": False}
TOOLTIP = "Shows what the image encoder sees in the reference, and how much of it is left after the removal"


class ContentAnalysis:
    """Built where the content prompt stands, wired when the whole tab is there."""

    def __init__(self, elem_id: Callable[[str], str]) -> None:
        self._elem_id = elem_id

    def build(self) -> None:
        self._button = gr.Button(
            "Analyse reference",
            size="sm",
            tooltip=TOOLTIP,
            elem_id=self._elem_id("analyse"),
            elem_classes=["instantstyle-analyse"],
        )
        self._words = gr.CheckboxGroup(
            choices=[],
            label="Seen in the reference: tick what to remove",
            visible=False,
            interactive=True,  # gradio takes what is only written to for read-only
            elem_id=self._elem_id("words"),
            elem_classes=["instantstyle-words"],
        )
        self._words.do_not_save_to_config = True
        self._meter = gr.HTML(visible=False, elem_id=self._elem_id("meter"))
        self._offered = gr.State([])  # the words to pick from
        self._analysed = gr.State(None)  # what READ held when it was analysed

    def wire(self, made: Mapping[str, Any]) -> None:
        """Connect the tab's controls, by their names."""
        prompt, steered = made["content_prompt"], [made[name] for name in STEERED]
        shown = [self._words, self._meter, self._offered, self._analysed]
        self._button.click(fn=_reading, outputs=[self._meter], **QUIET).then(
            fn=with_progress(self._analyse), inputs=[*(made[name] for name in READ), *steered], outputs=shown
        )
        for name in READ:
            made[name].change(fn=_nothing_shown, outputs=shown, **QUIET)
        metered = {"fn": self._follow, "inputs": [self._analysed, *steered], "outputs": [self._meter], **QUIET}
        picking = self._words.select(fn=_pick, inputs=[prompt, self._offered], outputs=[prompt, self._words], **QUIET)
        picking.then(**metered)
        for written in (prompt.submit, prompt.blur):
            written(fn=picked_in, inputs=[prompt, self._offered], outputs=[self._words], **QUIET).then(**metered)
        for component in steered[1:]:
            component.change(**metered)

    @staticmethod
    def _analyse(progress: Progress, *values: Any) -> list[Any]:
        read, steered = values[: len(READ)], values[len(READ) :]
        try:
            unit = _unit(read, steered)
            found = analyse_in_turn(unit, WORDS, progress)
        except Exception as error:
            problem = problem_html(explained(error).message)
            return [gr.update(visible=False), gr.update(visible=True, value=problem), [], None]
        offered = [word.text for word in found.words]
        words = gr.update(visible=True, choices=offered, value=picked_in(unit.content_prompt, offered))
        return [words, gr.update(visible=True, value=meter_html(found.meter)), offered, read]

    @staticmethod
    def _follow(read: Any, *steered: Any) -> Any:
        """The meter for what is set now; nothing before the first analysis."""
        if read is None:
            return gr.update()
        with analyst_if_free() as analyst:
            if analyst is None:
                return gr.update(value=busy_html())
            try:
                return gr.update(value=meter_html(analyst.meter(_unit(read, steered))))
            except Exception as error:
                return gr.update(value=problem_html(explained(error).message))


def _unit(read: Any, steered: Any) -> StyleUnit:
    tab = dict(zip((*READ, *STEERED), (*read, *steered)))
    if tab["image"] is None and not tab["more_pictures"]:
        raise UnitError("There is no reference picture yet. Add one first.", "image")
    return unit_to_analyse(tab)


def _pick(prompt: str, offered: list[str], event: gr.SelectData) -> tuple[str, list[str]]:
    """Only the word that was clicked comes or goes: what else the chips show may lag behind what is being written."""
    changed = toggled(prompt, event.value, event.selected)
    return changed, picked_in(changed, offered)


def _reading() -> Any:
    """Make room where the meter comes: gradio shows the progress there."""
    return gr.update(visible=True, value='<div class="instantstyle-reading"></div>')


def _nothing_shown() -> list[Any]:
    return [gr.update(visible=False, choices=[], value=[]), gr.update(visible=False, value=""), [], None]
