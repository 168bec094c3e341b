"""What is learnt is what generation uses, the frozen stays frozen, and the loss falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_instantstyle.core.units import StyleUnit
from lib_instantstyle.hosts.standalone import StandaloneHost
from lib_instantstyle.training import train
from lib_instantstyle.training.materials import Materials, Place, open_materials
from lib_instantstyle.training.prediction import ModelInput, StyledPrediction

from ..tiny import picture
from ..tiny.unets import unet_inputs
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
    features = torch.stack([materials.towers.no_picture(), materials.towers.features([reference])[0]])
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
