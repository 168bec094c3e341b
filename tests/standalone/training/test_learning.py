"""What is learnt is what generation uses, the frozen stays frozen, and the loss falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_instantstyle.standalone import StandaloneHost
from lib_instantstyle.standalone.models import open_pipeline
from lib_instantstyle.standalone.training import train
from lib_instantstyle.standalone.training.batches import Batches
from lib_instantstyle.standalone.training.draws import Draw
from lib_instantstyle.standalone.training.materials import Materials, Place, open_materials
from lib_instantstyle.standalone.training.prediction import ModelInput, StyledPrediction
from lib_instantstyle.standalone.training.recipe import noise_schedule
from lib_instantstyle.units.unit import StyleUnit

from ...tiny import picture, vision_model
from ...tiny.clip import image_processor
from ...tiny.pipelines import SIDE
from ...tiny.unets import unet_inputs
from .conftest import SettingsMaker

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32, the same sums in the same order but for the layout of K and V


def opened(settings: Any) -> Materials:
    return open_materials(settings, Place(torch.device("cpu"), torch.float32))


def call_inputs(materials: Materials) -> dict[str, Any]:
    """Arguments of one UNet call of two rows, always the same."""
    inputs: Any = unet_inputs(2)
    width = materials.pipe.text_encoder_2.config.projection_dim
    inputs["added_cond_kwargs"]["text_embeds"] = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    return inputs


def predicted(materials: Materials, features: Tensor, acting: frozenset[int]) -> Tensor:
    """The training's own prediction for fixed inputs."""
    inputs = call_inputs(materials)
    added = inputs["added_cond_kwargs"]
    call = (inputs["sample"], torch.tensor([500, 500]), inputs["encoder_hidden_states"])
    given = ModelInput(*call, added["text_embeds"], added["time_ids"], features)
    prediction = StyledPrediction(materials.pipe.unet, materials.modules, materials.adapter)
    prediction.attach()
    try:
        return prediction(given, acting).detach()
    finally:
        prediction.detach()


@pytest.mark.parametrize("kind", ["base", "plus"])
@pytest.mark.parametrize("blocks", [("style",), ("original",), ("layout+mid_block",)], ids=lambda one: one[0])
def test_a_trained_adapter_predicts_in_generation_what_it_predicted_in_training(
    settings: SettingsMaker, tmp_path: Path, kind: str, blocks: tuple[str, ...]
) -> None:
    outcome = train(settings(kind=kind, blocks=blocks, steps=2))
    materials = opened(settings(kind=kind, blocks=blocks, init=outcome.adapter))
    reference = picture(7)
    features = torch.stack([materials.encoders.no_picture(), materials.encoders.features([reference])[0]])
    (group,) = materials.groups
    wanted = predicted(materials, features, frozenset(layer.index for layer in group.layers))
    plain = predicted(materials, features, frozenset())
    host = StandaloneHost(materials.pipe, [outcome.adapter], [settings().encoder], cache=tmp_path / "cache")
    scales = {layer.names[0]: 1.0 for layer in group.layers}
    unit = StyleUnit.from_dict({"image": [reference], "preset": "custom", "blocks": scales})
    host.session.attach(host.session.plan([unit]))
    host.session.call.cond_rows = (False, True)
    with torch.no_grad():
        found = materials.pipe.unet(**call_inputs(materials)).sample
    host.session.detach()
    torch.testing.assert_close(found, wanted, **CLOSE)
    assert (wanted - plain).abs().max() > 1e-3


def batches_of(materials: Materials) -> Batches:
    pipe, source = materials.pipe, materials.source
    schedule, scaling = noise_schedule(pipe.scheduler), pipe.vae.config.scaling_factor
    place = (torch.device("cpu"), torch.float32)
    return Batches(source, schedule, scaling, materials.encoders.no_picture(), materials.settings, *place)


@pytest.mark.parametrize("kind", ["base", "plus"])
@pytest.mark.parametrize("share", ["image", "text", "both", "none"])
def test_dropped_prompts_reach_the_unet_as_nothing(settings: SettingsMaker, kind: str, share: str) -> None:
    drops = {"drop_image": 0.0, "drop_text": 0.0, "drop_both": 0.0, f"drop_{share}": 1.0}
    drops.pop("drop_none", None)
    materials = opened(settings(kind=kind, cache=False, **drops))
    given, _ = batches_of(materials).make([Draw(0, number) for number in range(3)])
    empty, pooled = materials.encoders.contexts([""])
    nothing = materials.encoders.no_picture()
    no_image = [torch.equal(embeds, nothing) for embeds in given.image_embeds]
    no_text = [torch.equal(a, empty[0]) and torch.equal(b, pooled[0]) for a, b in zip(given.context, given.pooled)]
    assert no_image == [share in ("image", "both")] * 3
    assert no_text == [share in ("text", "both")] * 3
    if kind == "base":
        assert not nothing.any()


def test_the_unet_is_given_the_noise_it_is_to_predict(settings: SettingsMaker) -> None:
    batches = batches_of(opened(settings(cache=False)))
    given, target = batches.make([Draw(0, number) for number in range(3)])
    alpha = batches.schedule.alphas_cumprod[given.timesteps].view(-1, 1, 1, 1)
    latents = (given.noisy - (1 - alpha).sqrt() * target) / alpha.sqrt()
    assert latents.shape == (3, 4, 16, 16)
    again, _ = batches.make([Draw(0, number) for number in range(3)])
    assert torch.equal(again.noisy, given.noisy)
    assert abs(float(target.std()) - 1) < 0.05


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_a_complete_adapter_gives_in_diffusers_the_pictures_it_gives_here(
    settings: SettingsMaker, models: Path, tmp_path: Path, kind: str
) -> None:
    given = settings(base=models / "sdxl", kind=kind, blocks=("original",), steps=1)
    adapter = train(given).adapter
    calls: dict[str, Any] = {"prompt": "a cat", "width": SIDE, "height": SIDE, "num_inference_steps": 2}
    calls |= {"output_type": "np", "guidance_scale": 4.0}

    def made(pipe: Any, **more: Any) -> Any:
        return pipe(**calls, **more, generator=torch.Generator().manual_seed(0)).images

    host = StandaloneHost(opened(given).pipe, [adapter], [given.encoder], cache=tmp_path / "cache")
    plain = made(host.pipe)
    with host.styled([StyleUnit(image=(picture(),), preset="original")]) as pipe:
        found = made(pipe)
    theirs = open_pipeline(given.base, torch.device("cpu"), torch.float32)  # its UNet is changed, so one of its own
    theirs.register_modules(image_encoder=vision_model(), feature_extractor=image_processor(32))
    theirs.load_ip_adapter(str(adapter.parent), subfolder="", weight_name=adapter.name, image_encoder_folder=None)
    theirs.set_ip_adapter_scale(1.0)
    wanted = made(theirs, ip_adapter_image=picture())
    assert abs(wanted - plain).max() > 0.01
    assert abs(found - wanted).max() <= 2e-5
