"""Which WebUI this is."""

from __future__ import annotations

from functools import cache

from .webui_host import WebUIHost


@cache
def live_host() -> WebUIHost:
    """The host of the process: it outlives "Reload UI", which executes the script anew but not the library."""
    from .a1111 import A1111Host

    return A1111Host()
