"""modules/processing.py: jobs, and the order in which the WebUI goes through one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .infotext import create_infotext
from .sampling import Sampler
from .scripts import PostprocessImageArgs, PostSampleArgs

SIDE = 8  # pixels of a latent's side


@dataclass(eq=False)
class Job:
    """What StableDiffusionProcessing and its two subclasses hold, as far as a script looks at it."""

    webui: Any
    prompt: str = "a house"
    negative_prompt: str = ""
    steps: int = 3
    sampler_name: str = "Euler"
    seed: int = 1
    cfg_scale: float = 6.0
    batch_size: int = 1
    n_iter: int = 1
    width: int = 64
    height: int = 64
    denoising_strength: float = 0.75
    s_min_uncond: float = 0.0
    refiner: tuple[float, Any] | None = None  # from this share of the steps on: the other checkpoint
    script_args: tuple[Any, ...] = ()
    scripts: Any = None
    is_api: bool = False
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, int] = field(default_factory=dict)
    sampler: Any = None
    c: Any = field(default=None, init=False)
    uc: Any = field(default=None, init=False)
    iteration: int = 0

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def close(self) -> None:
        self.sampler = self.c = self.uc = None

    def setup_prompts(self) -> None:
        pictures = self.batch_size * self.n_iter
        self.all_prompts, self.all_negative_prompts = [self.prompt] * pictures, [self.negative_prompt] * pictures
        self.all_seeds = [self.seed + number for number in range(pictures)]

    def next_batch(self, number: int) -> None:
        batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
        self.iteration = number
        self.prompts, self.negative_prompts = self.all_prompts[batch], self.all_negative_prompts[batch]
        self.seeds = self.all_seeds[batch]

    def setup_conds(self) -> None:
        self.c = [[self._cond(part) for part in prompt.split(" AND ")] for prompt in self.prompts]
        self.uc = [self._cond(prompt) for prompt in self.negative_prompts]

    def _cond(self, text: str) -> dict[str, Tensor]:
        """One text's conditioning, without the batch dimension."""
        batched: dict[str, Tensor] = self.webui.sd_model.get_learned_conditioning([text])
        return {key: tensor[0] for key, tensor in batched.items()}

    def noise(self, more: int = 0) -> Tensor:
        made = [torch.Generator().manual_seed(seed + more) for seed in self.seeds]
        shape = (4, self.height // SIDE, self.width // SIDE)
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in made])
        return noise.to(next(self.webui.unet.parameters()).dtype)

    def new_sampler(self) -> Sampler:
        return Sampler(self.sampler_name, self)

    def before_hires(self, **given: Any) -> None:
        """What a WebUI does before the second pass besides."""

    def sample(self, conditioning: Any, unconditional_conditioning: Any) -> Tensor:
        raise NotImplementedError


@dataclass(eq=False)
class Txt2Img(Job):
    enable_hr: bool = False
    hr_second_pass_steps: int = 0
    hr_checkpoint: Any = None
    is_hr_pass: bool = field(default=False, init=False)

    def sample(self, conditioning: Any, unconditional_conditioning: Any) -> Tensor:
        self.sampler = self.new_sampler()
        x, c, uc = self.noise(), conditioning, unconditional_conditioning
        self.scripts.process_before_every_sampling(p=self, x=x, noise=x, c=c, uc=uc)
        samples = self.sampler.sample(self, x, c, uc)
        return self.sample_hr_pass(samples) if self.enable_hr else samples

    def sample_hr_pass(self, samples: Tensor) -> Tensor:
        if self.webui.state.interrupted:
            return samples
        self.webui.sd_model = self.hr_checkpoint or self.webui.sd_model
        self.is_hr_pass = True
        self.sampler, noise = self.new_sampler(), self.noise(more=1000)
        self.scripts.before_hr(self)
        self.before_hires(x=samples, noise=noise, c=self.c, uc=self.uc)
        self.scripts.process_before_every_sampling(p=self, x=samples, noise=noise, c=self.c, uc=self.uc)
        steps = self.hr_second_pass_steps or self.steps
        samples = self.sampler.sample_img2img(self, samples, noise, self.c, self.uc, steps=steps)
        self.sampler, self.is_hr_pass = None, False
        return samples


@dataclass(eq=False)
class Img2Img(Job):
    init_images: list[Image.Image] = field(default_factory=list)

    def sample(self, conditioning: Any, unconditional_conditioning: Any) -> Tensor:
        self.sampler = self.new_sampler()
        noise = self.noise()
        init = torch.stack([_encoded(self.init_images[0], self.width, self.height)] * len(self.prompts))
        c, uc = conditioning, unconditional_conditioning
        self.scripts.process_before_every_sampling(p=self, x=init, noise=noise, c=c, uc=uc)
        return self.sampler.sample_img2img(self, init, noise, c, uc)


@dataclass
class Processed:
    images: list[Image.Image]
    infotexts: list[str]
    comments: str

    def js(self) -> str:
        return json.dumps({"infotexts": self.infotexts})


@torch.no_grad()
def process_images(p: Job) -> Processed:
    """The whole of a job; what is raised while it samples leaves at once, and then no script hears of the end."""
    checkpoint = p.webui.sd_model
    p.scripts.before_process(p)
    p.setup_prompts()
    p.scripts.process(p)
    images: list[Image.Image] = []
    texts: list[str] = []
    for number in range(p.n_iter):
        p.webui.state.skipped = False
        if p.webui.state.interrupted:
            break
        p.webui.sd_model = checkpoint  # the refiner's, or that of a hires pass, goes
        p.next_batch(number)
        p.setup_conds()
        ps = PostSampleArgs(p.sample(conditioning=p.c, unconditional_conditioning=p.uc))
        p.scripts.post_sample(p, ps)
        _finish(p, _decoded(ps.samples), images, texts)
    if len(images) > 1 and p.webui.opts.return_grid:
        images.insert(0, images[0])
        texts.insert(0, create_infotext(p, 0, use_main_prompt=True))
    processed = Processed(images, texts, "\n".join(p.comments))
    p.scripts.postprocess(p, processed)
    return processed


def _finish(p: Any, decoded: list[Image.Image], images: list[Image.Image], texts: list[str]) -> None:
    for index, image in enumerate(decoded):
        p.batch_index = index
        pp = PostprocessImageArgs(image)
        p.scripts.postprocess_image(p, pp)
        texts.append(create_infotext(p, index))
        images.append(pp.image)


def _decoded(samples: Any) -> list[Image.Image]:
    """Latents (rows, 4, h, w) as pictures of eight times the side."""
    if getattr(samples, "already_decoded", False):
        samples = torch.stack(samples).float()
    if samples.isnan().any():
        raise RuntimeError("A tensor with NaNs was produced in Unet.")
    pixels = samples[:, :3].sigmoid().repeat_interleave(SIDE, 2).repeat_interleave(SIDE, 3)
    return [Image.fromarray((255 * one.permute(1, 2, 0)).byte().numpy()) for one in pixels]


def _encoded(image: Image.Image, width: int, height: int) -> Tensor:
    small = np.asarray(image.convert("RGB").resize((width // SIDE, height // SIDE)), dtype=np.float32) / 255
    return torch.cat([torch.from_numpy(small).permute(2, 0, 1), torch.zeros(1, *small.shape[:2])]) * 2 - 1
