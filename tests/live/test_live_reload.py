""" "Reload UI" runs the script anew while the model, the library and any hook stay: still everything is there once."""

from __future__ import annotations

from pathlib import Path

from live_world import as_base64, picture

UNIT = {"image": as_base64(picture(0))}


def callbacks() -> dict[str, int]:
    """How often our script is registered with each of the WebUI's callbacks."""
    from modules import script_callbacks

    ours = {
        name: sum(Path(callback.script).name == "instantstyle.py" for callback in callbacks)
        for name, callbacks in script_callbacks.callback_map.items()
    }
    return {name: count for name, count in ours.items() if count}


def axes() -> list[str]:
    from modules import scripts

    script = next(one for one in scripts.scripts_data if one.script_class.__module__ == "xyz_grid.py")
    return [option.label for option in script.module.axis_options if "InstantStyle" in option.label]


def test_a_reloaded_ui_styles_as_before(webui, by_the_book):
    before, registered, options = webui.txt2img(UNIT), callbacks(), axes()
    assert set(registered.values()) == {1}
    assert len(set(options)) == len(options) > 0
    webui.reload_ui()
    assert webui.txt2img(UNIT).same_as(before)
    assert webui.txt2img().same_as(by_the_book.plain("txt2img", {}))
    assert callbacks() == registered
    assert axes() == options
    assert webui.client.get("/instantstyle/version").status_code == 200


def test_reloading_takes_the_hooks_of_a_failed_job_out(webui):
    def fail(module, args):
        raise RuntimeError("the plug was pulled")

    handle = webui.unet.register_forward_pre_hook(fail)
    assert webui.txt2img(UNIT).status == 500
    handle.remove()
    webui.reload_ui()
    assert not webui.hooks()
