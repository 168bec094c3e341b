"""The one file the WebUI executes: the always-on script, its lifecycle and the error policy. The rest is library."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lib_instantstyle import __version__
from lib_instantstyle.units.errors import explained
from lib_instantstyle.webui.api import add_endpoints
from lib_instantstyle.webui.arguments import requested_units
from lib_instantstyle.webui.job import live_job, write_infotext
from lib_instantstyle.webui.measuring import measure_result
from lib_instantstyle.webui.panel.panel import Panel
from lib_instantstyle.webui.refusals import empty_if_refused, refuse_pass, refuse_planned, refuse_samples
from lib_instantstyle.webui.settings import add_settings
from lib_instantstyle.webui.xyz_grid import TITLE, add_axes, in_cell
from modules import script_callbacks, scripts, shared

job = live_job()


class InstantStyleScript(scripts.Script):
    """Style transfer from reference pictures. The file's name and the title are permanent API."""

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        panel = Panel(self.elem_id, job.host)
        self.infotext_fields = panel.paste_fields
        self.paste_field_names = panel.paste_names
        return panel.components

    def before_process(self, p: Any, *args: Any) -> None:
        job.end()

    def process(self, p: Any, *args: Any) -> None:
        with refusing(p, refuse_planned):
            job.begin(p, in_cell(p, requested_units(args)))
            write_infotext(p, job.plans, __version__)

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        with refusing(p, refuse_pass):
            x = kwargs.get("x")
            size = tuple(x.shape[-2:]) if x is not None else None
            job.attach(p, lambda: in_cell(p, requested_units(args)), size)

    def post_sample(self, p: Any, ps: Any, *args: Any) -> None:
        with refusing(p, refuse_samples, ps):
            job.check_applied(p)
        job.detach()
        empty_if_refused(p, ps)

    def postprocess_image(self, p: Any, pp: Any, *args: Any) -> None:
        measure_result(job, p, pp.image, lambda: in_cell(p, requested_units(args)))

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        job.end()


@contextmanager
def refusing(p: Any, refuse: Callable[..., None], *args: Any) -> Iterator[None]:
    """The WebUI goes on after an exception in a script, without the style. So the job is refused by other means."""
    try:
        yield
    except Exception as error:
        job.end()
        refuse(p, *args, explained(error), loud=job.host.shows_errors_of(p))


def on_app_started(demo: Any, app: Any) -> None:
    if shared.cmd_opts.api or shared.cmd_opts.nowebui:
        add_endpoints(app, job.host.files)


script_callbacks.on_cfg_denoiser(job.before_model_call)
script_callbacks.on_cfg_after_cfg(job.after_model_call)
script_callbacks.on_script_unloaded(job.end)
script_callbacks.on_before_ui(add_axes)
script_callbacks.on_ui_settings(add_settings)
script_callbacks.on_app_started(on_app_started)
