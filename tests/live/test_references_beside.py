"""References that are looked at by self-attention, and colours, beside what else acts in a job; under more conditions
test_matrix_conditions.py runs this.

What the other party does must still be done, weight 0 must be no style, and nothing may be left for the next job.
"""

from __future__ import annotations

from typing import Any

import pytest
from live_controlnet import ADAPTER, REFERENCE, controlnet
from live_world import as_base64, picture

pytestmark = [pytest.mark.under_condition, pytest.mark.matrix("references")]

PICTURE = as_base64(picture(0, (96, 64)))
UNITS: dict[str, dict[str, Any]] = {
    "swapped": {"method": "swapped", "image": PICTURE},
    "shared": {"method": "shared", "image": PICTURE},
    "palette": {"method": "palette", "image": PICTURE},
}
IDLE = {"palette": {"palette": 0}}  # of the others a weight of 0
STEPS = {"steps": 4}
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
NEIGHBOURS: dict[str, dict[str, Any]] = {
    "alone": {},
    "T2I-Adapter": controlnet(ADAPTER),
    "NegPiP": {"prompt": "a cat (dog:-1.2)", "scripts": {"NegPiP": {"args": [True]}}},
    "LoRA": {"prompt": "a cat <lora:tiny-lora:1>"},
    "token merging": {"options": {"token_merging_ratio": 0.5}},
    "hires fix": HIRES,
}
TILED = {"width": 512, "height": 256, "options": {"hypertile_enable_unet": True, "hypertile_max_tile_unet": 128}}


def there(world: Any, name: str) -> None:
    wanted = {"T2I-Adapter": "*controlnet*", "reference_only": "*controlnet*", "NegPiP": "*negpip*"}
    if name in wanted and not world.has(wanted[name]):
        pytest.skip(f"there is no {name} here")


@pytest.mark.parametrize("method", UNITS)
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_both_act_and_leave_nothing(webui: Any, world: Any, method: str, neighbour: str) -> None:
    there(world, neighbour)
    settings = {**STEPS, **NEIGHBOURS[neighbour]}
    plain = webui.txt2img(**settings)
    styled = webui.txt2img(UNITS[method], **settings)
    assert styled.status == 200, styled.answer
    assert not any(own.same_as(other) for own, other in zip(styled.passes, plain.passes))
    assert webui.txt2img({**UNITS[method], **IDLE.get(method, {"weight": 0})}, **settings).same_as(plain)
    if neighbour not in ("alone", "hires fix", "token merging"):  # merging changes nothing of SDXL
        assert not styled.same_as(webui.txt2img(UNITS[method], **STEPS))
    assert not webui.hooks()


@pytest.mark.parametrize("method", ["swapped", "shared"])
@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [("hypertile", TILED, "Hypertile"), ("reference_only", controlnet(REFERENCE), "ControlNet's reference units")],
)
def test_what_cannot_be_had_together_is_said(
    webui: Any, world: Any, method: str, name: str, settings: dict[str, Any], said: str
) -> None:
    there(world, name)
    plain = webui.txt2img(**STEPS, **settings)
    refused = webui.txt2img(UNITS[method], **STEPS, **settings)
    assert refused.status == 500, refused.answer
    assert said in str(refused.answer)
    assert webui.txt2img(**STEPS, **settings).same_as(plain)
    assert not webui.hooks()
