"""modules/script_callbacks.py and errors.py: what a callback raises is reported and swallowed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any


class Swallowed(list[Exception]):
    """What the WebUI would have printed to its log and gone on after."""

    def guarded(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as error:
            self.append(error)
            return None


class ScriptCallbacks:
    """Callbacks by event; registered by `on_…`, as in script_callbacks.py."""

    def __init__(self, swallowed: Swallowed) -> None:
        self._swallowed = swallowed
        self._registered: dict[str, list[Callable[..., Any]]] = defaultdict(list)

    def registrar(self, event: str) -> Callable[..., None]:
        """The function `on_<event>`."""
        return lambda callback, name=None: self._registered[event].append(callback)

    def fire(self, event: str, *args: Any) -> None:
        backwards = event in ("before_ui", "script_unloaded")
        for callback in list(reversed(self._registered[event]) if backwards else self._registered[event]):
            self._swallowed.guarded(callback, *args)

    def clear(self) -> None:
        self._registered.clear()
