"""What the WebUI casts while it samples are its own models: ours are computed in the numbers that they are in."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from live_world import as_base64, picture


def casting_layers():
    """As on GTX 16 and Intel cards: no autocast, but every Linear casts its weights."""
    from modules import devices

    return devices.manual_cast(torch.bfloat16)


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("adapter", ["tiny-base", "tiny-plus"])
@pytest.mark.parametrize("casting", [casting_layers, autocast])
def test_keys_and_values_are_the_same_whatever_the_webui_casts(webui, monkeypatch, casting, adapter):
    from torch import nn

    from lib_instantstyle.webui.job import StyleJob, live_job

    attach, own = StyleJob._attach, nn.Linear.forward

    def attach_while_casting(self):
        with casting():
            before = nn.Linear.forward
            attach(self)
            assert nn.Linear.forward is before

    def job():
        with mock.patch.object(live_job().host, "embed_store", Forgetful()):
            live_job().session._kept.clear()
            done = webui.txt2img({"image": as_base64(picture(5)), "adapter": adapter, "content_prompt": "a gnu"})
        assert done.status == 200, done.answer
        return done

    expected = job()
    monkeypatch.setattr(StyleJob, "_attach", attach_while_casting)
    assert job().same_as(expected)
    assert nn.Linear.forward is own


class Forgetful:
    """A store of embeddings that keeps none."""

    def get(self, key):
        return None

    def put(self, key, embeds):
        pass
