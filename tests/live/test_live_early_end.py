"""A UNet that cannot be styled takes over in mid-picture, as a refiner of another family does."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from live_world import as_base64, picture

pytestmark = pytest.mark.matrix("interrupts and faults")

UNIT = {"image": as_base64(picture(0))}
BATCH = {"n_iter": 2, "steps": 3}


def refusing_once(call: int):
    """The host's `unet`, which refuses on one call: a job asks when it plans, when it attaches, and at each step."""
    from lib_instantstyle.units.errors import IncompatibleModelError
    from lib_instantstyle.webui.hosts.live import live_host

    ask, asked = type(live_host()).unet, []

    def unet(self):
        asked.append(call)
        if len(asked) == call:
            raise IncompatibleModelError("The refiner is of another family.")
        return ask(self)

    return mock.patch.object(type(live_host()), "unet", unet)


def test_the_style_ends_with_a_message_and_is_back_for_the_next_picture(webui):
    whole = webui.txt2img(UNIT, **BATCH)
    with refusing_once(call=4):
        ended = webui.txt2img(UNIT, **BATCH)
    assert ended.status == 200
    assert not torch.equal(ended.passes[0].latents, whole.passes[0].latents)
    assert torch.equal(ended.passes[1].latents, whole.passes[1].latents)


def test_a_style_that_never_acted_is_refused(webui):
    with refusing_once(call=3):
        job = webui.txt2img(UNIT)
    assert job.status == 500
    assert "ended before any reference's Start: The refiner is of another family" in job.answer["detail"]["message"]
