"""Make pictures of prompts in the style of references. Several of either make a batch, which can be resumed.

Single files given with --style are read together as one style; each picture of a folder is a style of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...files.loras import inspect_lora
from ...reference.pictures import read_mask, read_picture
from ...units.errors import InstantStyleError
from ...units.methods import ADAPTER, LORA, PALETTE, SHARED, SWAPPED
from ...units.unit import FIELDS, MASK_FIELDS, StyleUnit, checked
from ..devices import pick_device, pick_dtype
from ..jobs import Job
from ..model_shapes import check_channels
from ..models import SDXL_CONFIG, Checkpoint, Model, is_hub_id
from ..named_files import NamedFiles
from .batch import Batch, Setting
from .output import Report
from .references import STAND_IN, find_styles, of_lora, open_picture, read_prompts

# Options that fill a field of the unit: option, field, type, name of the value. The help is the field's own.
UNIT_OPTIONS = (
    ("--method", "method", str, "NAME"),
    ("--preset", "preset", str, "NAME"),
    ("--weight", "weight", float, "X"),
    ("--layout-weight", "layout_weight", float, "X"),
    ("--content", "content_prompt", str, "TEXT"),
    ("--content-method", "content_method", str, "NAME"),
    ("--content-scale", "content_scale", float, "X"),
    ("--start", "start", float, "X"),
    ("--end", "end", float, "X"),
    ("--push-weight", "push_weight", float, "X"),
    ("--curve", "curve", str, "NAME|POINTS"),
    ("--layout-curve", "layout_curve", str, "NAME|POINTS"),
    ("--fusion", "fusion", str, "NAME"),
    ("--kv-scaling", "kv_scaling", str, "NAME"),
    ("--crop", "crop", str, "NAME"),
    ("--combine", "combine", str, "NAME"),
    ("--negative-noise", "negative_noise", float, "X"),
    ("--attention-guidance", "attention_guidance", float, "X"),
    ("--image-weights", "image_weights", str, "X,X"),
    ("--palette", "palette", float, "X"),
)
# Options that fill a field of the unit with the pictures in files: option, field. They may be repeated.
PICTURE_OPTIONS = (
    ("--mask", "mask"),
    ("--image-mask", "image_mask"),
    ("--content-image", "content_image"),
    ("--negative-image", "negative_image"),
)
# Options that fill a field of the job, likewise.
JOB_OPTIONS = (
    ("--negative", "negative", str, "what the picture should not show"),
    ("--steps", "steps", int, "sampling steps (default: 30)"),
    ("--guidance", "guidance", float, "CFG scale; 1 turns guidance off (default: 5)"),
    ("--width", "width", int, "width in pixels (default: that of the init or control picture, or the model's own)"),
    ("--height", "height", int, "height in pixels"),
    ("--seed", "seed", int, "seed of the first picture; each further one adds 1 (default: 0)"),
    ("--count", "count", int, "pictures for each reference and prompt (default: 1)"),
    ("--batch", "at_once", int, "pictures generated at once (default: 1)"),
    ("--strength", "strength", float, "how much of the init picture is redrawn, 0 to 1 (default: 0.6)"),
    ("--control-scale", "control_scale", float, "strength of the ControlNet (default: 1)"),
)

# Options that each method needs; it takes no others of these.
PARTS = {
    ADAPTER: ("style", "adapter", "encoder"),
    SHARED: ("style",),
    SWAPPED: ("style",),
    PALETTE: ("style",),
    LORA: ("lora",),
}
SMALLER = (
    "Make the picture smaller (--width, --height), make fewer at once (--batch 1), use --dtype float16, or "
    "--device cpu."
)


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("stylize", help="make pictures in the style of a reference", description=__doc__)
    _add_what(parser)
    _add_models(parser)
    parser.add_argument(
        "--lora", type=Path, metavar="FILE", help="for --method lora: the LoRA file, instead of --style"
    )
    for option, name, kind, value in UNIT_OPTIONS:
        parser.add_argument(option, dest=name, type=kind, metavar=value, help=help_of_field(name))
    for option, name in PICTURE_OPTIONS:
        given: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE"}
        parser.add_argument(option, dest=name, type=Path, help=help_of_field(name), **given)
    parser.add_argument("--leak-guard", action="store_true", help=help_of_field("leak_guard"))
    parser.add_argument(
        "--block",
        action="append",
        metavar="ADDRESS=SCALE",
        help="a custom block; may be repeated. ComfyUI's 0:1, 6:1.2 and ControlNet's eleven numbers are read too.",
    )
    for option, name, type_, told in JOB_OPTIONS:
        parser.add_argument(option, dest=name, type=type_, metavar="TEXT" if type_ is str else "N", help=told)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run, smaller=SMALLER)


def _add_what(parser: argparse.ArgumentParser) -> None:
    given: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--style", type=Path, metavar="FILE|DIR", help="reference picture", **given)
    parser.add_argument("--prompt", metavar="TEXT", help="what to draw; may be repeated", **given)
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="file with one prompt per line; # starts a comment"
    )
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from this picture (img2img)")
    parser.add_argument("--control", type=Path, metavar="FILE", help="control picture, as the ControlNet expects it")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the pictures and the index")


def _add_models(parser: argparse.ArgumentParser) -> None:
    given: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE|DIR"}
    where = "FILE|DIR|ID"
    parser.add_argument("--model", required=True, metavar=where, help="SDXL checkpoint, diffusers folder or Hub id")
    parser.add_argument("--model-config", metavar="DIR|ID", help="configuration of a checkpoint file, if not beside it")
    parser.add_argument("--adapter", help="IP-Adapter for SDXL; if several are given, the best is used", **given)
    parser.add_argument("--encoder", help="the CLIP image encoder that the adapter was trained with", **given)
    parser.add_argument("--controlnet", metavar=where, help="SDXL ControlNet")
    parser.add_argument("--device", help="cuda, cuda:1, mps, cpu (default: the best here)")
    parser.add_argument("--dtype", help="float16, bfloat16, float32 (default: float16, on a CPU float32)")


def help_of_field(name: str) -> str:
    """What the schema says of a field, as argparse takes it."""
    return FIELDS[name].help.replace("%", "%%")


def run(options: argparse.Namespace) -> Report:
    """Make what is not made yet. Raises InstantStyleError when something asked for cannot be honoured."""
    _check_parts(options)
    styles = (of_lora(options.lora),) if options.lora else find_styles(options.style)
    prompts = read_prompts(options.prompt, options.prompts)
    files, job, unit = _files(options), _job(options), _unit(options, max(len(style.paths) for style in styles))
    batch = Batch(options.out, _setting(options, files), styles, tuple(prompts), job, unit)
    return batch.run(quiet=options.quiet)


def _check_parts(options: argparse.Namespace) -> None:
    """Raise InstantStyleError where the method lacks a part, or there is one of another method."""
    method = checked("method", options.method)
    for part in dict.fromkeys(part for parts in PARTS.values() for part in parts if part not in PARTS[method]):
        if getattr(options, part):
            takes = " or ".join(name for name, parts in PARTS.items() if part in parts)
            raise InstantStyleError(f"--{part} is only for --method {takes}; the method is {method}.")
    for part in PARTS[method]:
        if not getattr(options, part):
            raise InstantStyleError(f"The method {method} needs --{part}, but it was not given.")


def _files(options: argparse.Namespace) -> NamedFiles:
    """What was named, looked at before any model is. Raises InstantStyleError."""
    if options.lora:
        inspect_lora(options.lora.expanduser())
        return NamedFiles([options.lora], [])
    files = NamedFiles(options.adapter, options.encoder)
    if not options.adapter:
        return files
    files.encoder(files.adapter("auto").feature)
    return files


def _setting(options: argparse.Namespace, files: NamedFiles) -> Setting:
    device = pick_device(options.device)
    dtype = pick_dtype(options.dtype, device)
    if (options.control is None) != (options.controlnet is None):
        raise InstantStyleError(
            "--control and --controlnet belong together, but only one was given. Give both or neither."
        )
    model = named_model(options)
    check_channels(model)
    return Setting(model, files, options.controlnet, str(device), str(dtype).removeprefix("torch."))


def named_model(options: argparse.Namespace) -> Model:
    """What --model names, with its --model-config. Raises InstantStyleError when that describes nothing."""
    path, config = Path(options.model).expanduser(), options.model_config
    if config is not None and not path.is_file():
        raise InstantStyleError(
            f"--model-config is only for checkpoint files; there is no file {options.model}. "
            "Check the path, or leave --model-config out."
        )
    if config is not None and not Path(config).expanduser().is_dir() and not is_hub_id(config):
        raise InstantStyleError(
            f"--model-config takes a diffusers folder or a Hub id like {SDXL_CONFIG}; there is no folder {config}. "
            "Check the path."
        )
    return Checkpoint(path, config) if path.is_file() else str(options.model)


def _job(options: argparse.Namespace) -> Job:
    """What all cells have in common."""
    fields = {name: getattr(options, name) for _, name, *_ in JOB_OPTIONS if getattr(options, name) is not None}
    init, control = (open_picture(path).image if path else None for path in (options.init, options.control))
    job = Job("", init=init, control=control, **fields)
    job.check()
    return job


def _unit(options: argparse.Namespace, pictures: int) -> StyleUnit:
    """What all cells ask of the style; each puts its own pictures in."""
    fields = {name: getattr(options, name) for _, name, *_ in UNIT_OPTIONS if getattr(options, name) is not None}
    for _, name in PICTURE_OPTIONS:
        read = read_mask if name in MASK_FIELDS else read_picture
        fields[name] = [open_picture(path, read).image for path in getattr(options, name)]
    if options.block:
        fields = {"preset": "custom", **fields, "blocks": _blocks(options.block)}
    fields["leak_guard"] = options.leak_guard
    source = {"lora": options.lora.stem} if options.lora else {"image": [STAND_IN] * pictures}
    return StyleUnit.from_dict({**source, **fields})


def _blocks(given: list[str]) -> str | dict[str, float]:
    """Custom blocks, or the text of another project's as the field itself reads it."""
    theirs = len(given) == 1 and "=" not in given[0] and (":" in given[0] or "," in given[0])
    return given[0] if theirs else dict(map(_block, given))


def _block(text: str) -> tuple[str, float]:
    address, _, scale = text.partition("=")
    try:
        return address.strip(), float(scale)
    except ValueError:
        raise InstantStyleError(f"--block must read ADDRESS=SCALE, like up_blocks.0=0.5; got {text!r}.") from None
