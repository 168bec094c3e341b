"""What is in the UNet when it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from live_webui import LiveWebUI


@contextmanager
def at_call(webui: LiveWebUI, number: int, action: Callable[[], object] | None) -> Iterator[list[list[str]]]:
    """Run `action` before the UNet's call of that number, counted from 1; give our hooks as each call found them."""
    found: list[list[str]] = []

    def watch(module: object, args: object) -> None:
        found.append(webui.hooks())
        if len(found) == number and action is not None:
            action()

    if webui.unet is None:  # Forge loads its checkpoint with the first job
        webui.txt2img()
    handle = webui.unet.register_forward_pre_hook(watch)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def hooked_calls(webui: LiveWebUI) -> Iterator[list[bool]]:
    """For each call of the UNet, whether our hooks were in it."""
    told: list[bool] = []
    with at_call(webui, 0, None) as found:
        yield told
    told.extend(map(bool, found))
