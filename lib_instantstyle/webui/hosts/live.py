"""Which WebUI this is, told by what it has loaded. What one of them lacks is imported for the others only."""

from __future__ import annotations

import sys

from .forge import ForgeHost, memory_management
from .webui_host import WebUIHost


def live_host() -> WebUIHost:
    """A host for the WebUI that is running; the job keeps it for the life of the process."""
    if "modules_forge" in sys.modules and memory_management() is not None:
        return ForgeHost()
    from .a1111 import A1111Host

    return A1111Host()
