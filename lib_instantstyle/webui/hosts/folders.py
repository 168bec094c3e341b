"""Where a WebUI keeps its models and what its settings say of ours; the same in every WebUI of this family."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules import paths, shared

DEFAULT_UNITS = 3
CONTROLNET = "*controlnet*"  # its folder under extensions/, whatever the user called it
FORGES_ENCODERS = "CLIP-*"  # as its IP-Adapter calls the files that it fetches, among preprocessors of all kinds
QUOTES = "\"'“”„‘’«»"


@dataclass(frozen=True)
class Place:
    """A setting or a command line option that names folders, one a line or one an item."""

    name: str  # as people know it
    option: str  # in shared.opts, or in shared.cmd_opts where the name begins with dashes
    of_annotators: bool = False  # relative to the WebUI's data folder, as ControlNet reads it

    def lines(self) -> list[str]:
        """What is written there, without quotation marks and empty lines."""
        source = shared.cmd_opts if self.name.startswith("--") else shared.opts
        value: Any = getattr(source, self.option, None) or []
        lines = map(str, value) if isinstance(value, (list, tuple)) else str(value).splitlines()
        return list(filter(None, map(_unquoted, lines)))


_OWN = Place("--instantstyle-dir", "instantstyle_dir")
ADAPTER_PLACES = (
    Place("Settings → InstantStyle", "instantstyle_adapter_dirs"),
    _OWN,
    Place("Settings → ControlNet", "control_net_models_path"),
    Place("--controlnet-dir", "controlnet_dir"),
    Place("--controlnet-dirs", "controlnet_dirs"),
)
ENCODER_PLACES = (Place("Settings → InstantStyle", "instantstyle_encoder_dirs"), _OWN)
ANNOTATOR_PLACES = (  # ControlNet keeps its image encoders in a folder below, called clip_vision
    Place("Settings → ControlNet", "control_net_modules_path", of_annotators=True),
    Place("--controlnet-annotator-models-path", "controlnet_annotator_models_path", of_annotators=True),
)
LORA_PLACES = (Place("--lora-dir", "lora_dir"), Place("--lora-dirs", "lora_dirs"))


def unit_count() -> int:
    """How many units the panel shows and a payload may hold."""
    return max(1, int(getattr(shared.opts, "instantstyle_units", DEFAULT_UNITS)))


def keeps_references() -> bool:
    """Whether pictures of jobs are kept, so that an infotext brings them back."""
    return bool(getattr(shared.opts, "instantstyle_keep_references", True))


def adapter_folders() -> list[Path]:
    """Where adapters are looked for, downloads going to the first."""
    models = Path(paths.models_path)
    own = [models / name for name in ("ControlNet", "ipadapter", "ip-adapter")]
    neighbours = sorted(Path(paths.extensions_dir).glob(f"{CONTROLNET}/models"))
    return [*own, *_of_forge("controlnet_dir"), *neighbours, *_named(ADAPTER_PLACES)]


def encoder_folders() -> list[Path]:
    """Where image encoders are looked for, downloads going to the first."""
    neighbours = sorted(Path(paths.extensions_dir).glob(f"{CONTROLNET}/annotator/downloads/clip_vision"))
    annotators = [folder / "clip_vision" for folder in _named(ANNOTATOR_PLACES)]
    fetched = [file for folder in _of_forge("preprocessor_dir") for file in sorted(folder.glob(FORGES_ENCODERS))]
    return [Path(paths.models_path) / "clip_vision", *fetched, *neighbours, *annotators, *_named(ENCODER_PLACES)]


def lora_folders() -> list[Path]:
    """Where LoRAs are looked for: in the WebUI's own folders."""
    return list(dict.fromkeys([*_named(LORA_PLACES), Path(paths.models_path) / "Lora"]))


def configured_folders() -> dict[Path, str]:
    """The folders that somebody named, and where they did."""
    return _named((*ADAPTER_PLACES, *ENCODER_PLACES, *ANNOTATOR_PLACES))


def said(folder: Path) -> str:
    """The end of a folder's path: answers of the API tell nobody how this machine's disks are arranged."""
    return "/".join(part for part in folder.parts[-2:] if part != folder.anchor)


def _of_forge(name: str) -> list[Path]:
    """A folder of the ControlNet that comes with Forge and its kin, which has command line options of its own."""
    folder = getattr(sys.modules.get("modules_forge.shared"), name, None)
    return [Path(folder)] if folder else []


def _named(places: tuple[Place, ...]) -> dict[Path, str]:
    """Folder → where it was named; the first place counts."""
    found: dict[Path, str] = {}
    for place in places:
        for line in place.lines():
            folder = _folder(line)
            found.setdefault(Path(paths.data_path) / folder if place.of_annotators else folder, place.name)
    return found


def _folder(line: str) -> Path:
    try:
        return Path(line).expanduser()
    except RuntimeError:  # "~somebody" whom this machine does not know
        return Path(line)


def _unquoted(line: str) -> str:
    """Without the quotation marks that file managers put around a path they copy."""
    line = line.strip()
    while len(line) > 1 and line[0] in QUOTES and line[-1] in QUOTES:
        line = line[1:-1].strip()
    return line
