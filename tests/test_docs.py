"""The documents say what the code says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lib_instantstyle.files.downloads import DOWNLOADS
from lib_instantstyle.standalone.cli.app import parser
from lib_instantstyle.standalone.cli.doctor import NEEDED
from lib_instantstyle.units.fields import Choice, Number
from lib_instantstyle.units.unit import FIELDS

ROOT = Path(__file__).parents[1]


def api_rows() -> dict[str, str]:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    return dict(re.findall(r"^\| `(\w+)` \| (.+)$", text, re.MULTILINE))


def test_every_field_has_a_row_in_the_api_document_and_no_row_is_left_over() -> None:
    assert list(api_rows()) == list(FIELDS)


def test_rows_give_each_fields_help_bounds_and_choices() -> None:
    for name, row in api_rows().items():
        kind = FIELDS[name].kind
        assert FIELDS[name].help in row
        if isinstance(kind, Choice):
            assert all(f"`{choice}`" in row for choice in kind.choices)
        if isinstance(kind, Number):
            assert f"{kind.low:g} to {kind.high:g}".replace("-", "−") in row


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_downloads_come_from_a_pinned_revision_with_whole_hashes() -> None:
    for download in DOWNLOADS.values():
        assert re.search(r"^https://.+/resolve/[0-9a-f]{40}/", download.url)
        assert re.fullmatch(r"[0-9a-f]{64}", download.sha256)


def test_doctor_asks_for_what_the_requirements_name() -> None:
    lines = (ROOT / "requirements-standalone.txt").read_text("utf-8").splitlines()
    bounds = dict(line.split(">=") for line in lines if ">=" in line)
    assert bounds == NEEDED


def test_commands_in_the_documents_are_commands_that_parse() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "standalone.md", ROOT / "docs" / "training.md"):
        text = page.read_text("utf-8").replace("\\\n", " ")
        commands = re.findall(r"^(?:python|accelerate launch .+) -m lib_instantstyle (.+)$", text, re.MULTILINE)
        assert commands
        for command in commands:
            assert parser().parse_args(shlex.split(command)).command


def test_options_in_the_standalone_document_exist() -> None:
    text = (ROOT / "docs" / "standalone.md").read_text("utf-8")
    (stylize,) = [action.choices["stylize"] for action in parser()._actions if action.choices]
    for row in re.findall(r"^\| .+? \| `(--[^`]+)` \|$", text, re.MULTILINE):
        assert {word for word in shlex.split(row) if word.startswith("--")} <= set(stylize._option_string_actions)
