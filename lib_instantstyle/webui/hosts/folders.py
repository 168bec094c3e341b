"""Where a WebUI keeps its models and what its settings say of ours; the same in every WebUI of this family."""

from __future__ import annotations

from pathlib import Path

from modules import paths, shared

DEFAULT_UNITS = 3
CONTROLNET = "*controlnet*"  # its folder under extensions/, whatever the user called it


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
    return [*own, *neighbours, *_configured("instantstyle_adapter_dirs")]


def encoder_folders() -> list[Path]:
    """Where image encoders are looked for, downloads going to the first."""
    neighbours = sorted(Path(paths.extensions_dir).glob(f"{CONTROLNET}/annotator/downloads/clip_vision"))
    return [Path(paths.models_path) / "clip_vision", *neighbours, *_configured("instantstyle_encoder_dirs")]


def _configured(option: str) -> list[Path]:
    """Folders from a setting (one a line) and from --instantstyle-dir."""
    lines = str(getattr(shared.opts, option, "") or "").splitlines()
    lines += getattr(shared.cmd_opts, "instantstyle_dir", None) or []
    return [Path(line.strip()).expanduser() for line in lines if line.strip()]
