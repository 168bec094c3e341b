"""The world as an SDXL pipeline and as files: the same network, however it is put together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from demo.world import assembly, export, packing
from demo.world.clip import trained_towers
from demo.world.host import open_world
from demo.world.prompts import SAID, TAILS, read_prompts
from lib_instantstyle.files.adapters import inspect_adapter
from lib_instantstyle.standalone import Checkpoint
from lib_instantstyle.standalone.models import open_pipeline
from lib_instantstyle.units.blocks import SDXL_DEPTHS, attention_layers

CAPTIONS = ["a house", "a large boat on the left, candy colors, mosaic"]
SIZES = torch.tensor([[128.0, 128, 0, 0, 128, 128]] * 2)


@pytest.fixture(scope="module")
def whole():
    return assembly.pipeline()


def contexts(pipe) -> tuple[Tensor, Tensor]:
    tokens, _, pooled, _ = pipe.encode_prompt(CAPTIONS, device="cpu", do_classifier_free_guidance=False)
    return tokens, pooled


@torch.no_grad()
def predicted(unet, tokens: Tensor, pooled: Tensor, sizes: Tensor = SIZES, **given) -> Tensor:
    noisy = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    added = {"text_embeds": pooled, "time_ids": sizes}
    return unet(noisy, torch.tensor(500), tokens, added_cond_kwargs=added, **given).sample


def test_the_unet_has_sdxls_seventy_layers(whole) -> None:
    assert len(attention_layers(whole.unet)) == sum(SDXL_DEPTHS) == 70


def test_idle_layers_change_nothing(whole) -> None:
    compact = assembly.pipeline(compact=True)
    assert torch.equal(predicted(whole.unet, *contexts(whole)), predicted(compact.unet, *contexts(whole)))


def test_sizes_and_crops_are_not_read(whole) -> None:
    told = contexts(whole)
    assert torch.equal(predicted(whole.unet, *told), predicted(whole.unet, *told, sizes=3 * SIZES))


def test_training_reads_captions_as_the_pipeline_does(whole) -> None:
    tokens, pooled = contexts(whole)
    read = read_prompts(trained_towers(), CAPTIONS)
    assert torch.equal(tokens[:, :SAID], read.tokens[:, :SAID])
    assert torch.equal(pooled, read.pooled)
    assert read.tokens.shape[1] == SAID + len(TAILS)
    in_training = predicted(whole.unet, read.tokens, read.pooled, encoder_attention_mask=read.mask)
    torch.testing.assert_close(predicted(whole.unet, tokens, pooled), in_training, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> export.WorldFiles:
    return export.write(tmp_path_factory.mktemp("models"))


def test_the_checkpoint_file_is_the_same_network_in_half_precision(whole, files: export.WorldFiles) -> None:
    opened = open_pipeline(Checkpoint(files.checkpoint), torch.device("cpu"), torch.float32)
    told = contexts(whole)
    for one, other in zip(told, contexts(opened)):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 * one.std().item())
    one, other = predicted(whole.unet, *told), predicted(opened.unet, *told)
    torch.testing.assert_close(one, other, rtol=0, atol=0.02 * one.std().item())
    latents = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        drawn = [pipe.vae.decode(latents).sample for pipe in (whole, opened)]
    torch.testing.assert_close(*drawn, rtol=0, atol=0.05)


def test_the_adapter_file_carries_all_layers_for_the_worlds_encoder(whole, files: export.WorldFiles) -> None:
    adapter = inspect_adapter(files.adapter)
    layers = attention_layers(whole.unet)
    adapter.check_fits(layers)
    adapter.check_carries(layers)
    assert adapter.feature.width == trained_towers().vision.config.projection_dim


def test_spreading_keeps_each_trained_layer_at_its_block_and_depth() -> None:
    compact = packing.read(assembly.ADAPTER)["adapter"]
    spread = assembly.spread_adapter(compact)
    acting = [name for name, tensor in spread.items() if name.startswith("ip_adapter.") and tensor.any()]
    assert len(acting) == len([name for name in compact if name.startswith("ip_adapter.")])


def test_the_world_opens_as_a_host(tmp_path: Path) -> None:
    host = open_world(tmp_path)
    assert host.files.adapter("auto").feature.width == 256
