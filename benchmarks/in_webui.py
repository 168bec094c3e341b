"""What a style costs in Forge or Forge Neo, beside that WebUI's own IP-Adapter; run it with the WebUI's own Python:

    WEBUI_DIR=~/forge-neo ~/forge-neo/venv/bin/python -m benchmarks.in_webui

Whole jobs are made by the WebUI's API, of a checkpoint with random weights. Timed is sampling alone, in processor time:
what an extension prepares before it is not included, what it does between two steps is.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from .report import Table
from .timing import Subject, compare

LIVE = Path(__file__).parents[1] / "tests/live"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    os.environ["INSTANTSTYLE_LIVE_WIDTHS"] = str(options.widths)  # before these modules are imported
    sys.path.insert(1, str(LIVE))
    with _webui() as webui, _image_prompts(), _sampling_timed() as clock:
        contest = Contest(webui, {"steps": options.steps, "width": options.pixels, "height": options.pixels})
        timings = compare(contest.subjects(), lambda: None, options.rounds, clock.seconds_of)
    name = f"{Path(os.environ['WEBUI_DIR']).name}, {options.widths}/10 of SDXL's widths, {options.pixels} px"
    rows = {subject: {"relative to the plain job": timing.ratio} for subject, timing in timings.items()}
    plain = timings["plain"].seconds.median / options.steps
    table = Table(
        name, {"relative to the plain job": ".3f"}, rows, f"{plain:.2f} s of processor time for a plain step."
    )
    sys.stdout.write(f"{table.markdown}\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_webui", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--widths", type=int, default=5, help="of the UNet, in tenths of SDXL's (default: 5)")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args(arguments)


@dataclass
class Contest:
    """The same job plain, with our units and with theirs."""

    webui: Any
    settings: Mapping[str, Any]

    def subjects(self) -> dict[str, Subject]:
        from live_forge_control import controlnet, image_prompt
        from live_world import as_base64, picture

        unit = {"image": as_base64(picture(0))}
        others = [{"image": as_base64(picture(number))} for number in range(3)]
        return {
            "plain": self._job(),
            "style, one unit": self._job(unit),
            "style + layout, one unit": self._job({**unit, "preset": "style_and_layout"}),
            "style, three units": self._job(*others),
            "original, all 70 layers": self._job({**unit, "preset": "original"}),
            "its own IP-Adapter, all 70 layers": self._job(**controlnet(image_prompt())),
        }

    def _job(self, *units: dict[str, Any], **more: Any) -> Subject:
        """Raises RuntimeError unless the picture is made, and made otherwise than the plain one where it should be."""
        told: dict[str, Any] = {}

        def work() -> None:
            job = self.webui.txt2img(*units, **self.settings, **more)
            if job.status != 200:
                raise RuntimeError(f"The WebUI answered {job.status}: {job.answer}")
            if (units or more) and not told:
                told["checked"] = True
                if job.same_as(self.webui.txt2img(**self.settings)):
                    raise RuntimeError("This job is the plain one.")

        return Subject(work=work)


@dataclass
class Clock:
    """Processor time of the sampling in a piece of work; what is checked in the warming round counts there, too."""

    spent: float = 0.0

    def seconds_of(self, work: Callable[[], object]) -> float:
        self.spent = 0.0
        work()
        return self.spent


@contextmanager
def _sampling_timed() -> Iterator[Clock]:
    from modules.sd_samplers_common import Sampler

    clock, sample = Clock(), Sampler.launch_sampling

    def sample_timed(self: Any, *args: Any) -> Any:
        started = time.process_time()
        try:
            return sample(self, *args)
        finally:
            clock.spent += time.process_time() - started

    with mock.patch.object(Sampler, "launch_sampling", sample_timed):
        yield clock


@contextmanager
def _image_prompts() -> Iterator[None]:
    from live_forge_control import tiny_image_prompts

    with tiny_image_prompts():
        yield


@contextmanager
def _webui() -> Iterator[Any]:
    """The WebUI, started in this process on a folder of its own."""
    import pytest
    from live_condition import Condition
    from live_kind import kind
    from live_webui import start
    from live_world import ENCODER_HIDDEN, ENCODER_PROJECTED, make_world
    from tiny_sdxl import write_tiny_adapter, write_tiny_encoder, write_tiny_sdxl

    if not kind().has_backend:
        raise SystemExit("WEBUI_DIR is to name a Forge or a Forge Neo: they bring an IP-Adapter along.")
    webui = Path(os.environ["WEBUI_DIR"]).expanduser().resolve()
    with tempfile.TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        models, data = Path(made) / "models", Path(made) / "data"
        data.mkdir()
        write_tiny_sdxl(models / "Stable-diffusion")
        write_tiny_adapter(models / "ControlNet" / "tiny-base.safetensors", encoder_width=ENCODER_PROJECTED)
        sizes = {"hidden_size": ENCODER_HIDDEN, "projection_dim": ENCODER_PROJECTED}
        write_tiny_encoder(models / "clip_vision" / "tiny", **sizes)
        condition = Condition(models=str(models))
        make_world(data, webui, condition)
        yield start(webui, data, condition, patch)


if __name__ == "__main__":
    sys.exit(main())
