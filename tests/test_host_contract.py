"""What a session may rely on in any host: each test holds for the tests' host and for the standalone one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_instantstyle.files.image_encoders import Feature
from lib_instantstyle.reference.host import Host
from lib_instantstyle.standalone import StandaloneHost
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import SDXL_BLOCKS, attention_layers
from lib_instantstyle.units.errors import AdapterNotFoundError, EncoderNotFoundError, TextTowerNotFoundError

from .jobs import STYLE, hooked_layers, unit
from .tiny import TinyHost, picture, sdxl_unet, unet_inputs
from .tiny.clip import HIDDEN, POOLED
from .tiny.pipelines import tiny_pipeline

ROWS = (False, True)


def tiny_host(world: Path, folder: Path) -> TinyHost:
    return TinyHost(sdxl_unet(pooled=POOLED), world, folder / "cache")


def standalone_host(world: Path, folder: Path) -> StandaloneHost:
    pipe = tiny_pipeline(folder / "tokenizer")
    return StandaloneHost(pipe, [world / "adapters"], [world / "encoders"], cache=folder / "cache")


@pytest.fixture(params=[tiny_host, standalone_host], ids=["tiny", "standalone"])
def any_host(request: pytest.FixtureRequest, world: Path, tmp_path: Path) -> Host:
    return request.param(world, tmp_path)


@torch.no_grad()
def called(host: Host) -> torch.Tensor:
    inputs: dict[str, Any] = unet_inputs(len(ROWS))
    inputs["added_cond_kwargs"]["text_embeds"] = torch.ones(len(ROWS), POOLED)
    return host.unet()(**inputs).sample


def test_the_unet_has_every_block_and_stays_the_same(any_host: Host) -> None:
    assert {layer.block for layer in attention_layers(any_host.unet())} == set(SDXL_BLOCKS)
    assert any_host.unet() is any_host.unet()


def test_adapters_are_found_by_name_and_by_auto(any_host: Host) -> None:
    names = ("base", "plus", "base.safetensors")
    assert [any_host.files.adapter(name).name for name in names] == ["base", "plus", "base"]
    assert any_host.files.adapter("auto").variant == "base"
    with pytest.raises(AdapterNotFoundError, match="base") as caught:
        any_host.files.adapter("nothing")
    assert caught.value.field == "adapter"


@pytest.mark.parametrize("feature", [Feature("pooled", POOLED), Feature("hidden", HIDDEN)])
def test_the_encoder_gives_the_feature_asked_for(any_host: Host, feature: Feature) -> None:
    assert any_host.files.encoder(feature).gives(feature)


def test_a_missing_encoder_is_refused_by_the_name_of_the_file_to_get(any_host: Host) -> None:
    with pytest.raises(EncoderNotFoundError, match="bigG") as caught:
        any_host.files.encoder(Feature("pooled", 1280))
    assert caught.value.field == "adapter"


def test_encoders_run_on_a_device_in_a_floating_precision(any_host: Host) -> None:
    device, dtype = any_host.encoder_device()
    assert isinstance(device, torch.device)
    assert dtype.is_floating_point


def test_room_for_the_encoder_is_given_back_after_an_error(any_host: Host) -> None:
    def fail() -> None:
        with any_host.room_for_encoder():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with any_host.room_for_encoder():
        pass


def test_texts_are_float_rows_on_the_cpu_each_depending_on_itself_alone(any_host: Host) -> None:
    rabbit = any_host.checkpoint_text_embeds(["a rabbit"])
    both = any_host.checkpoint_text_embeds(["a red roof", "a rabbit"])
    assert (both.shape, both.dtype, both.device.type) == ((2, rabbit.shape[1]), torch.float32, "cpu")
    assert torch.equal(rabbit, any_host.checkpoint_text_embeds(["a rabbit"]))
    torch.testing.assert_close(both[1:], rabbit, rtol=1e-5, atol=1e-5)
    assert not torch.equal(both[:1], both[1:])
    assert not rabbit.requires_grad


def test_embeddings_are_kept(any_host: Host) -> None:
    any_host.embed_store.put("key", torch.ones(1, 3))
    kept = any_host.embed_store.get("key")
    assert kept is not None
    assert torch.equal(kept, torch.ones(1, 3))
    assert any_host.embed_store.get("other") is None


@pytest.mark.parametrize("fields", [{}, {"content_prompt": "a rabbit"}, {"preset": "original"}, {"adapter": "plus"}])
def test_a_session_styles_and_leaves_no_trace(any_host: Host, fields: dict[str, Any]) -> None:
    plain, session = called(any_host), StyleSession(any_host)
    session.attach(session.plan([unit(**fields)]))
    session.call.cond_rows = ROWS
    assert STYLE in {name.partition(".transformer")[0] for name in hooked_layers(any_host.unet())}
    styled = called(any_host)
    session.detach()
    assert not torch.equal(styled, plain)
    assert torch.equal(called(any_host), plain)


def test_content_is_read_by_the_checkpoint_where_its_text_encoder_shares_the_encoders_space(any_host: Host) -> None:
    encoder = any_host.files.encoder(any_host.files.adapter("base").feature)
    assert any_host.text_tower(encoder) is None
    other = replace(encoder, config={**encoder.config, "projection_dim": 2 * POOLED})
    with pytest.raises(TextTowerNotFoundError) as caught:
        any_host.text_tower(other)
    assert caught.value.field == "content_prompt"


def test_hosts_answer_every_question_of_the_protocol(any_host: Host) -> None:
    asked: Callable[[type], set[str]] = lambda cls: {name for name in vars(cls) if not name.startswith("_")}  # noqa: E731
    assert all(callable(getattr(any_host, name)) for name in asked(Host))


def test_a_reference_becomes_a_latent_of_the_size_that_is_asked_for(any_host: Host) -> None:
    latent = any_host.latent_of(picture(), 10, 6)
    assert (latent.shape, latent.dtype) == ((1, 4, 10, 6), torch.float32)
    assert torch.equal(latent, any_host.latent_of(picture(), 10, 6))
    assert not torch.equal(latent, any_host.latent_of(picture(1), 10, 6))


def test_the_noise_schedule_goes_from_almost_one_down_to_almost_none(any_host: Host) -> None:
    alphas = any_host.alphas_cumprod()
    assert alphas.shape == (1000,)
    assert 0.98 < alphas[0] < 1
    assert 0 < alphas[-1] < 0.02
    assert (alphas.diff() < 0).all()
