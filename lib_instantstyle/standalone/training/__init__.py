"""Training an IP-Adapter for chosen blocks of a frozen SDXL UNet, on Hugging Face Accelerate.

    outcome = train(Settings(base="sd_xl_base_1.0.safetensors", encoder=Path("image_encoder"), data=Path("pictures"),
                             out=Path("run"), blocks=("style",)))

The WebUI never imports this wing; diffusers and accelerate are imported when a training starts.
"""

from .settings import Settings
from .trainer import Outcome, train

__all__ = ["Outcome", "Settings", "train"]
