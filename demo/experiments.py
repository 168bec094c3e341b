"""The paper's experiments as sections of a sheet: text-based, and the ablation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image
from tqdm import tqdm

from .modes import ABLATION, COMPARED, STYLE, Mode
from .setups import Setup
from .sheet import Row, Section
from .trials import Trial

REFERENCES, PROMPTS, ABLATED = 4, 4, 3  # rows and columns of the first section, rows of the last


def experiments(setup: Setup) -> list[Section]:
    """Draw them."""
    return [text_based(setup), ablation(setup), comparison(setup)]


def text_based(setup: Setup) -> Section:
    """References by prompts, in the same noise for a prompt."""
    prompts = setup.trials[0].prompts[:PROMPTS]
    rows = []
    for trial in _shown(setup.trials[:REFERENCES], "text-based"):
        asked = replace(trial, prompts=prompts, seed=setup.trials[0].seed)
        rows.append(Row(_told(trial), trial.reference, setup.draw(asked, STYLE)))
    return Section("1  Text-based: each reference's style, what the prompt says", _quoted(prompts), rows)


def ablation(setup: Setup) -> Section:
    """One prompt of some references, in all the ways of using a reference."""
    rows = []
    for trial in _shown(setup.trials[:ABLATED], "ablation"):
        asked = replace(trial, prompts=trial.prompts[:1])
        rows.append(Row(f"“{trial.prompts[0]}”", trial.reference, _each(setup, asked, ABLATION)))
    return Section("2  Ablation: weight tuning, subtraction, the style block, both", [m.name for m in ABLATION], rows)


def comparison(setup: Setup) -> Section:
    """One prompt of some references, by the methods that the paper compares itself with."""
    rows = []
    for trial in _shown(setup.trials[:ABLATED], "comparison"):
        asked = replace(trial, prompts=trial.prompts[:1])
        rows.append(Row(f"“{trial.prompts[0]}”", trial.reference, _each(setup, asked, COMPARED)))
    return Section("3  Comparison: the original at some weights, and other methods", [m.name for m in COMPARED], rows)


def _each(setup: Setup, trial: Trial, modes: Sequence[Mode]) -> list[Image.Image]:
    return [setup.draw(trial, mode)[0] for mode in modes]


def _told(trial: Trial) -> str:
    """What a reference shows."""
    return trial.content


def _quoted(prompts: Sequence[str]) -> list[str]:
    return [f"“{prompt}”" for prompt in prompts]


def _shown(trials: Sequence[Trial], name: str) -> Sequence[Trial]:
    return tqdm(trials, desc=f"{name:27}", unit="ref")
