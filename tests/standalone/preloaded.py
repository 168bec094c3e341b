"""What every command imports sooner or later."""

import accelerate  # noqa: F401
import diffusers
import tqdm  # noqa: F401

import lib_instantstyle.standalone.cli.app
import lib_instantstyle.standalone.training  # noqa: F401

OPENED = (
    diffusers.StableDiffusionXLPipeline,  # diffusers imports what is named
    diffusers.AutoencoderKL,
    diffusers.DDPMScheduler,
    diffusers.EulerDiscreteScheduler,
    diffusers.UNet2DConditionModel,
)
