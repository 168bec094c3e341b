"""A diffusers SDXL pipeline's answers to what a style session asks, and the pictures it makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..files.image_encoders import EncoderInfo
from ..files.text_towers import TextTowerInfo, Tokenizer
from ..reference.latents import checked_latent, pixels_for
from ..reference.plans import Plan, check_windows
from ..style.session import StyleSession
from ..units.errors import IncompatibleModelError, InstantStyleError, placed
from ..units.unit import StyleUnit
from .analysis_host import FilesHost, Paths
from .devices import pick_device, pick_dtype
from .jobs import Job, batches, call_arguments, check_kind, infotext
from .long_prompts import check_phrases, prompt_arguments
from .model_shapes import check_channels
from .models import Model, open_controlnet, open_pipeline, variant_of
from .named_files import NamedFiles
from .unet_calls import PipelineCalls, check_pipeline

# The pipeline of a job, by whether it has an init picture and a control picture.
PIPELINES = {
    (False, False): "StableDiffusionXLPipeline",
    (True, False): "StableDiffusionXLImg2ImgPipeline",
    (False, True): "StableDiffusionXLControlNetPipeline",
    (True, True): "StableDiffusionXLControlNetImg2ImgPipeline",
}


class StandaloneHost(FilesHost):
    """Implements reference.host.Host on a diffusers SDXL pipeline. One job at a time."""

    def __init__(
        self,
        pipe: Any,
        adapters: Paths = (),
        encoders: Paths = (),
        *,
        controlnet: Any = None,
        cache: Path | None = None,
    ) -> None:
        """`pipe`: any SDXL pipeline of diffusers, on its device. Adapters and LoRAs, and encoders: files or folders."""
        check_pipeline(pipe)
        super().__init__(adapters, encoders, cache)
        self.pipe = pipe
        self.controlnet = controlnet if controlnet is not None else pipe.components.get("controlnet")
        self.session = StyleSession(self)
        self._variants: dict[str, Any] = {type(pipe).__name__: pipe}

    @classmethod
    def open(
        cls,
        model: Model,
        adapters: Paths = (),
        encoders: Paths = (),
        *,
        controlnet: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> StandaloneHost:
        """A host on a checkpoint file, a diffusers folder or a Hub id; the network is asked for a Hub id only.

        `adapters`: IP-Adapters, and LoRAs for the method lora. Raises InstantStyleError with the reason when something
        is missing or unfit; files are looked at first.
        """
        NamedFiles(adapters, encoders)
        check_channels(model)
        at = pick_device(device)
        precision = pick_dtype(dtype, at)
        pipe = open_pipeline(model, at, precision)
        control = open_controlnet(controlnet, at, precision) if controlnet is not None else None
        return cls(pipe, adapters, encoders, controlnet=control)

    def unet(self) -> nn.Module:
        return self.pipe.unet

    @torch.no_grad()
    def latent_of(self, image: Image.Image, height: int, width: int) -> Tensor:
        vae = self.pipe.vae
        pixels = pixels_for(image, height, width, self.pipe.vae_scale_factor).to(self.pipe._execution_device)
        upcasts = vae.dtype == torch.float16 and vae.config.force_upcast  # as the pipelines do
        if upcasts:
            vae.to(dtype=torch.float32)
        try:
            mean = vae.encode(pixels.to(vae.dtype) * 2 - 1).latent_dist.mode()
        finally:
            if upcasts:
                vae.to(dtype=torch.float16)
        return checked_latent(mean.float() * vae.config.scaling_factor)

    def alphas_cumprod(self) -> Tensor:
        found = getattr(self.pipe.scheduler, "alphas_cumprod", None)
        if found is None:
            raise IncompatibleModelError(
                f"{type(self.pipe.scheduler).__name__} has no noise schedule that a reference can be noised by. "
                "Use one of diffusers' schedulers for SDXL, such as EulerDiscreteScheduler."
            )
        return found

    def encoder_device(self) -> tuple[torch.device, torch.dtype]:
        device = self.pipe._execution_device  # under offloading the parts lie elsewhere
        half = device.type == "cuda" and self.pipe.unet.dtype != torch.float32
        return device, torch.float16 if half else torch.float32

    def text_tower(self, encoder: EncoderInfo) -> TextTowerInfo | None:
        own = getattr(self.pipe, "text_encoder_2", None)
        width = int(own.config.projection_dim) if own is not None else None
        return self.files.text_tower(encoder, width)

    def tokenizer(self) -> Tokenizer | None:
        tokenize = getattr(self.pipe, "tokenizer_2", None)
        if tokenize is None:
            return None
        return lambda text: tokenize(text, add_special_tokens=False, truncation=False).input_ids

    @torch.no_grad()
    def checkpoint_text_embeds(self, texts: Sequence[str]) -> Tensor:
        encoder, tokenizer = self._second_text_encoder(), self.pipe.tokenizer_2
        padded = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        tokens = tokenizer(list(texts), return_tensors="pt", **padded).input_ids
        return encoder(tokens.to(self.pipe._execution_device)).text_embeds.float().cpu()

    def checkpoint_name(self, texts: Sequence[str]) -> str | None:
        return None  # a pipeline does not say which weights it holds

    def _second_text_encoder(self) -> Any:
        encoder = getattr(self.pipe, "text_encoder_2", None)
        if encoder is None:
            raise IncompatibleModelError(
                "A content prompt is read by the checkpoint's second text encoder, but this pipeline has none. "
                "Open the pipeline with it, or leave the content prompt empty.",
                "content_prompt",
            )
        return encoder

    @contextmanager
    def styled(self, units: Sequence[StyleUnit], pipe: Any = None) -> Iterator[Any]:
        """While it lasts, `pipe` (or the host's own, which is what it gives) draws in the units' style.

        Any number of calls, prompts, pictures and sampling passes. Raises InstantStyleError before anything is
        attached; afterwards everything is taken out again, whatever happens inside.
        """
        with self._attached(self._planned(units), pipe or self.pipe):
            yield pipe or self.pipe

    @contextmanager
    def _attached(self, plans: Sequence[Plan], pipe: Any) -> Iterator[None]:
        self._check_free(pipe)
        calls = PipelineCalls(pipe, self.session.call, self.session.palette)
        try:
            self.session.attach(plans)
            if self.session.attached_to is not None:
                calls.attach()
            yield
            self.session.call.end()
            self.session.palette.check()
        finally:
            self.session.detach()
            calls.detach()

    def _check_free(self, pipe: Any) -> None:
        check_pipeline(pipe)
        if pipe.unet is not self.pipe.unet:
            raise IncompatibleModelError("This pipeline's UNet is not the host's. Make a host for this pipeline.")
        if self.session.attached_to is not None:
            raise InstantStyleError("This host is already drawing in a style. Put all units into one list.")

    def pipeline(self, job: Job) -> Any:
        """The pipeline that a job needs, on the same models."""
        check_kind(job, self.controlnet is not None)
        name = PIPELINES[job.init is not None, job.control is not None]
        if name not in self._variants:
            self._variants[name] = variant_of(self.pipe, name, self.controlnet if job.control is not None else None)
        return self._variants[name]

    def plan(self, job: Job) -> tuple[Plan, ...]:
        """Check a job whole, without making a picture. Raises InstantStyleError."""
        job.check()
        check_kind(job, self.controlnet is not None)
        plans = self._planned(job.units)
        check_windows(plans, [job.model_calls(self.pipe.scheduler.order)])
        return plans

    def _planned(self, units: Sequence[StyleUnit]) -> tuple[Plan, ...]:
        if tokenize := self.tokenizer():
            for number, unit in enumerate(units, 1):
                with placed(unit=number):
                    check_phrases(unit, tokenize)
        plans = self.session.plan(units)
        if any(plan.unit.palette_share for plan in plans):
            self.alphas_cumprod()
        return plans

    def generate(self, job: Job) -> list[Image.Image]:
        """The job's pictures, each with its `info["parameters"]`. Raises InstantStyleError."""
        plans, pipe = self.plan(job), self.pipeline(job)
        words = prompt_arguments(pipe, job.prompt, job.negative, guided=job.guidance > 1)
        pictures: list[Image.Image] = []
        with self._attached(plans, pipe):
            for seeds in batches(job):
                made = pipe(**words, **call_arguments(job, seeds)).images
                for seed, picture in zip(seeds, made):
                    picture.info["parameters"] = infotext(job, plans, seed, picture.size)
                pictures += made
        return pictures
