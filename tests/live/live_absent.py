"""The WebUI as if an extension's scripts had never been loaded, or had been loaded in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock


def is_ours(script: str) -> bool:
    return Path(script).name == "instantstyle.py"


@contextmanager
def extension_absent() -> Iterator[None]:
    """Our script is in no list of scripts, our callbacks in no list of callbacks."""
    from modules import script_callbacks, scripts

    with ExitStack() as stack:
        for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
            others = [script for script in runner.alwayson_scripts if not is_ours(script.filename)]
            assert len(others) == len(runner.alwayson_scripts) - 1
            stack.enter_context(_scripts_are(runner, others))
        for name, callbacks in script_callbacks.callback_map.items():
            others = [callback for callback in callbacks if not is_ours(callback.script)]
            stack.enter_context(mock.patch.dict(script_callbacks.callback_map, {name: others}))
        _forget_the_order(stack)
        yield


@contextmanager
def scripts_sorted(key: Callable[[str], Any]) -> Iterator[None]:
    """All always-on scripts and callbacks are called in the order of `key(file of the script)`."""
    from modules import script_callbacks, scripts

    with ExitStack() as stack:
        for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
            ordered = sorted(runner.alwayson_scripts, key=lambda script: key(script.filename))
            stack.enter_context(_scripts_are(runner, ordered))
        for name, callbacks in script_callbacks.callback_map.items():
            ordered = sorted(callbacks, key=lambda callback: key(callback.script))
            stack.enter_context(mock.patch.dict(script_callbacks.callback_map, {name: ordered}))
        _forget_the_order(stack)
        yield


@contextmanager
def _scripts_are(runner: Any, ordered: list[Any]) -> Iterator[None]:
    """`runner` has these always-on scripts, and no order kept from before."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(runner, "alwayson_scripts", ordered))
        if hasattr(runner, "callback_map"):  # Forge Classic keeps no order
            stack.enter_context(mock.patch.object(runner, "callback_map", {}))
        yield


def _forget_the_order(stack: ExitStack) -> None:
    """Have the callbacks put in order anew, now and when `stack` ends."""
    from modules import script_callbacks

    kept = getattr(script_callbacks, "ordered_callbacks_map", {})  # Forge Classic keeps none
    stack.callback(kept.clear)
    kept.clear()
