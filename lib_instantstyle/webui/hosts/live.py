"""Which WebUI this is, told by what it has loaded. What one of them lacks is imported for the others only."""

from __future__ import annotations

import sys
from functools import cache

from .forge import ForgeHost, memory_management
from .webui_host import WebUIHost


@cache
def live_host() -> WebUIHost:
    """The host of the process: it outlives "Reload UI", which executes the script anew but not the library."""
    if "modules_forge" in sys.modules and memory_management() is not None:
        return ForgeHost()
    from .a1111 import A1111Host

    return A1111Host()
