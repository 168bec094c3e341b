"""A tiny SDXL of few layers, its adapters and its encoder, on disk and in memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lib_instantstyle.standalone import Job, StandaloneHost
from lib_instantstyle.style.session import StyleSession

from ..tiny import base_adapter, plus_adapter, save_adapter, vision_model
from ..tiny.clip import HIDDEN, POOLED
from ..tiny.pipelines import SIDE, tiny_controlnet, tiny_pipeline, tokenizer

LIVE = Path(__file__).parents[1] / "live"
DEPTHS, LAYERS = (1, 2), 17  # few, for speed; where SDXL's own seventy matter, a test makes them


@pytest.fixture(scope="session")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One pipeline for all tests: whoever styles it leaves no trace, or the next test fails."""
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"), DEPTHS)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, pipe: Any) -> Path:
    """The pipeline, a ControlNet, adapters and an encoder as files. Not to be changed."""
    folder = tmp_path_factory.mktemp("models")
    save_adapter(base_adapter(pipe.unet, POOLED), folder / "adapters/base.safetensors")
    save_adapter(plus_adapter(pipe.unet, HIDDEN), folder / "adapters/plus.safetensors")
    vision_model().save_pretrained(folder / "encoder", safe_serialization=True)
    pipe.save_pretrained(folder / "sdxl", safe_serialization=True)
    tiny_controlnet(pipe.unet).save_pretrained(folder / "controlnet", safe_serialization=True)
    return folder


@pytest.fixture
def host(pipe: Any, models: Path, tmp_path: Path) -> StandaloneHost:
    made = StandaloneHost(
        pipe,
        [models / "adapters"],
        [models / "encoder"],
        controlnet=tiny_controlnet(pipe.unet),
        cache=tmp_path / "cache",
    )
    assert isinstance(made.session, StyleSession)
    return made


@pytest.fixture
def job() -> Callable[..., Job]:
    return lambda **fields: Job(**{"prompt": "a cat on the roof", "width": SIDE, "height": SIDE, "steps": 2, **fields})


@pytest.fixture(scope="session")
def live() -> Any:
    """The maker of the tiny checkpoint in the published single-file format that the live tests use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(LIVE))
        import tiny_sdxl
    yield tiny_sdxl
    for name in [name for name in sys.modules if name.startswith("tiny_")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def described(live: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint file, the folder that describes it, an adapter and an encoder. Not to be changed."""
    folder = tmp_path_factory.mktemp("described")
    live.save_random(live._checkpoint(live.unet.DEEP), folder / "tiny.safetensors", 0, torch.float16)
    write_description(folder / "tiny", folder / "tokenizer")
    live.write_tiny_encoder(folder / "encoder", hidden_size=64, projection_dim=256)
    live.write_tiny_adapter(folder / "adapter.safetensors", encoder_width=256)
    return folder


@pytest.fixture
def single_file(described: Path, tmp_path: Path) -> Path:
    """A checkpoint file, and the folder that describes it beside it, under its name."""
    shutil.copytree(described, tmp_path, dirs_exist_ok=True)
    return tmp_path / "tiny.safetensors"


def write_description(folder: Path, vocabulary: Path) -> None:
    """Configurations and tokenizers without weights, as the Hub has them of SDXL."""
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=288,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=256 + 6 * 256,
    )
    coder = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    vae = AutoencoderKL(block_out_channels=(32, 32, 32, 32), down_block_types=coder[0], up_block_types=coder[1])
    towers = [tower(CLIPTextModel, 32, 12, "quick_gelu"), tower(CLIPTextModelWithProjection, 256, 10, "gelu")]
    words = tokenizer(vocabulary)
    pipe = StableDiffusionXLPipeline(vae, *towers, words, words, unet, EulerDiscreteScheduler(), add_watermarker=False)
    pipe.save_config(str(folder))
    for name, part in pipe.components.items():
        if part is not None:
            save = part.save_config if hasattr(part, "save_config") else getattr(part, "config", part).save_pretrained
            save(str(folder / name))


def tower(cls: Any, width: int, layers: int, act: str) -> Any:
    size = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "hidden_act": act}
    return cls(CLIPTextConfig(**size, num_attention_heads=4, projection_dim=width, vocab_size=49408))
