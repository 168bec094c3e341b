"""Our encoders and projections are not computed in the numbers that the WebUI casts its own models to.

On most devices it casts by torch's autocast. On some (GTX 16, Intel, Macs) `devices.manual_cast` gives whole classes of
layers a `forward` that casts their weights instead; `devices.without_autocast` does not end that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from modules import devices


@contextmanager
def uncast() -> Iterator[None]:
    """Compute in the numbers that tensors have, whatever the WebUI has switched on for its own models."""
    casting = [kind for kind in getattr(devices, "patch_module_list", ()) if "org_forward" in vars(kind)]
    kept = [(kind, kind.forward, kind.org_forward) for kind in casting]
    for kind, _, own in kept:
        kind.forward = own
        del kind.org_forward  # or the WebUI would take them for casting when it is asked to, inside
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for kind, cast, own in kept:
            kind.forward, kind.org_forward = cast, own
