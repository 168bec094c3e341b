"""The settings page: what is registered, and what each setting changes."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from ..tiny import base_adapter, save_adapter
from ..tiny.clip import POOLED
from ..tiny.unets import LdmUnet
from .seen import unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111

DEFAULTS = {
    "instantstyle_units": 3,
    "instantstyle_adapter_dirs": "",
    "instantstyle_encoder_dirs": "",
    "instantstyle_pristine_text": False,
    "instantstyle_keep_references": True,
    "instantstyle_measure": False,
}
NAMED = {
    "instantstyle_units": "Number of references",
    "instantstyle_adapter_dirs": "IP-Adapter",
    "instantstyle_encoder_dirs": "image encoders",
    "instantstyle_pristine_text": "Read content prompts",
    "instantstyle_keep_references": "Keep reference pictures",
    "instantstyle_measure": "Measure each result",
}


def test_every_setting_has_a_name_a_default_and_a_place(web: A1111) -> None:
    assert {name: info.default for name, info in web.opts.data_labels.items()} == DEFAULTS
    assert {info.section for info in web.opts.data_labels.values()} == {("instantstyle", "InstantStyle")}
    assert {info.category_id for info in web.opts.data_labels.values()} == {"sd"}
    said = {name: info.label for name, info in web.opts.data_labels.items()}
    for name, word in NAMED.items():
        assert word in said[name], name


def test_the_number_of_references_has_bounds_and_asks_for_a_reload(web: A1111) -> None:
    info = web.opts.data_labels["instantstyle_units"]
    assert info.component_args == {"minimum": 1, "maximum": 10, "step": 1}
    assert "Reload UI" in info.comment_after


@pytest.mark.parametrize(("set_to", "shown"), [(1, 1), (5, 5), (0, 1)])
def test_the_panel_and_the_api_have_as_many_references_as_are_set(web: A1111, set_to: int, shown: int) -> None:
    web.opts.data["instantstyle_units"] = set_to
    web.reload_ui()
    page = web.page()
    assert [number for number in range(1, 12) if page.has(f"unit{number}_weight")] == list(range(1, shown + 1))
    web.generate(*[unit()] * shown)
    with pytest.raises(web.library("refusals").InstantStyleRefused, match=f"At most {shown} references") as caught:
        web.generate(*[unit()] * (shown + 1))
    assert caught.value.detail["unit"] == shown + 1


@pytest.mark.parametrize("by", ["setting", "argument"])
def test_adapters_are_found_in_folders_of_ones_own(web: A1111, tmp_path: Path, by: str) -> None:
    save_adapter(base_adapter(LdmUnet(), POOLED, seed=5), tmp_path / "mine/special.safetensors")
    if by == "setting":
        web.opts.data["instantstyle_adapter_dirs"] = f"\n  {tmp_path / 'mine'}  \n"
    else:
        web.cmd_opts.instantstyle_dir = [str(tmp_path / "mine")]
    assert web.generate(unit(adapter="special")).images


def test_the_command_line_takes_folders_several_times() -> None:
    spec = importlib.util.spec_from_file_location("preload", Path(__file__).parents[2] / "preload.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parser = argparse.ArgumentParser()
    module.preload(parser)
    parsed = parser.parse_args(["--instantstyle-dir", "a", "--instantstyle-dir", "b"])
    assert parsed.instantstyle_dir == ["a", "b"]
    assert parser.parse_args([]).instantstyle_dir is None


@pytest.mark.parametrize("keeps", [True, False])
def test_references_are_kept_for_pasting_unless_that_is_switched_off(web: A1111, keeps: bool) -> None:
    web.opts.data["instantstyle_keep_references"] = keeps
    made = web.generate(unit())
    kept = list((web.data_path / "cache/instantstyle/pictures").rglob("*.png"))
    assert bool(kept) is keeps
    assert "InstantStyle 1" in made.infotexts[0]


def test_settings_that_were_never_registered_have_their_defaults(web: A1111) -> None:
    """A server without a page may take a job before it registers them."""
    before: dict[str, Any] = dict(web.opts.data)
    web.opts.data = {name: value for name, value in before.items() if not name.startswith("instantstyle")}
    assert web.generate(unit()).images
