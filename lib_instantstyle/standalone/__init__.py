"""InstantStyle without the WebUI: a diffusers SDXL pipeline under the same session and hooks.

    host = StandaloneHost.open("sd_xl_base_1.0.safetensors", ["ip-adapter_sdxl.safetensors"], ["image_encoder"])
    pictures = host.generate(Job("a cat on a roof", (StyleUnit(image=(reference,)),)))

The WebUI never imports this wing; diffusers is imported only when a model is opened.
"""

from .host import StandaloneHost
from .jobs import Job
from .models import Checkpoint

__all__ = ["Checkpoint", "Job", "StandaloneHost"]
