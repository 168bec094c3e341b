"""Attaching and detaching a style job: hooks where they belong, and no trace afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.errors import CheckpointError, IncompatibleModelError

from ..jobs import LAYOUT, STYLE, attach, changed_world, hooked_layers, run, unit
from ..tiny import CONTEXT, LdmUnet, TinyHost, base_adapter, save_adapter, sd15_unet, sdxl_unet, unet_inputs
from ..tiny.clip import POOLED

BLOCKS = ("output_blocks.1", "input_blocks.8")  # style and layout in ldm's notation
ROUTES = [
    ({"preset": "style"}, {STYLE}),
    ({"preset": "layout"}, {LAYOUT}),
    ({"preset": "style_and_layout"}, {STYLE, LAYOUT}),
    ({"preset": "style_and_layout", "layout_weight": 0.0}, {STYLE}),
    ({"preset": "custom", "blocks": (("mid_block", 1.0), (LAYOUT, 0.0))}, {"mid_block.attentions.0"}),
]


@pytest.mark.parametrize(("fields", "blocks"), ROUTES)
def test_hooks_sit_on_every_routed_layer_and_nowhere_else(
    session: StyleSession, host: TinyHost, fields: dict[str, Any], blocks: set[str]
) -> None:
    attach(session, unit(**fields))
    wanted = [layer.names[0] for layer in attention_layers(host.unet()) if layer.block in blocks]
    assert hooked_layers(host.unet()) == sorted(wanted)
    assert session.attached_to is host.unet()


def test_every_routed_layer_adds_style_once_a_call(session: StyleSession, host: TinyHost) -> None:
    attach(session, unit(preset="original"), unit(preset="style", adapter="other"))
    run(host.unet())
    assert session.call.styled == len(attention_layers(host.unet()))


def test_detach_restores_the_output_bit_for_bit_and_may_be_repeated(session: StyleSession, host: TinyHost) -> None:
    plain = run(host.unet())
    session.detach()
    for _ in range(2):
        attach(session, unit(preset="original"))
        assert not torch.equal(run(host.unet()), plain)
        session.detach()
        session.detach()
        assert torch.equal(run(host.unet()), plain)
        assert (hooked_layers(host.unet()), session.attached_to) == ([], None)


def test_detach_restores_the_output_when_sampling_raises(session: StyleSession, host: TinyHost) -> None:
    plain, inputs = run(host.unet()), unet_inputs(2)
    attach(session, unit(preset="original"))
    with pytest.raises(RuntimeError):
        host.unet()(**{**inputs, "encoder_hidden_states": inputs["encoder_hidden_states"][..., :-1]})
    session.detach()
    assert torch.equal(run(host.unet()), plain)


def test_attaching_replaces_what_was_attached(session: StyleSession, host: TinyHost) -> None:
    attach(session, unit(preset="layout"))
    alone = run(host.unet())
    attach(session, unit(preset="original"))
    attach(session, unit(preset="layout"))
    assert torch.equal(run(host.unet()), alone)


def test_detach_frees_the_unet_that_was_hooked_and_not_the_live_one(session: StyleSession, host: TinyHost) -> None:
    attach(session, unit())
    hooked, host.live_unet = host.unet(), sdxl_unet(seed=1)
    session.detach()
    assert hooked_layers(hooked) == hooked_layers(host.unet()) == []


def test_failing_attach_leaves_no_hook_and_names_the_unit(world: Path, tmp_path: Path) -> None:
    def break_layout(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        index = next(layer.index for layer in attention_layers(sdxl_unet()) if layer.block == LAYOUT)
        tensors[f"ip_adapter.{2 * index + 1}.to_v_ip.weight"][0, 0] = float("nan")
        return tensors

    session = StyleSession(changed_world(world, tmp_path, "base", break_layout))
    attach(session, unit(preset="style"))
    with pytest.raises(CheckpointError) as caught:
        attach(session, unit(preset="style"), unit(preset="style_and_layout"))
    assert caught.value.unit == 2
    assert (hooked_layers(session.host.unet()), session.attached_to) == ([], None)


def test_checkpoint_swapped_after_the_plan_is_refused_without_a_hook(session: StyleSession, host: TinyHost) -> None:
    plans, host.live_unet = session.plan([unit(content_prompt="a rabbit")]), sd15_unet()
    with pytest.raises(IncompatibleModelError):
        session.attach(plans)
    assert (host.encoder_loads, host.text_encodings) == (0, 0)
    assert session.attached_to is None
    assert not any(module._forward_hooks for module in host.unet().modules())


@pytest.mark.parametrize("fields", [{"weight": 0.0}, {"preset": "custom", "blocks": ((STYLE, 0.0),)}])
def test_weight_zero_encodes_nothing_and_hooks_nothing(
    session: StyleSession, host: TinyHost, fields: dict[str, Any]
) -> None:
    plain = run(host.unet())
    attach(session, unit(**fields))
    assert (host.encoder_loads, hooked_layers(host.unet()), session.attached_to) == (0, [], None)
    assert torch.equal(run(host.unet()), plain)


def test_outside_its_window_a_unit_changes_no_bit(session: StyleSession, host: TinyHost) -> None:
    plain = run(host.unet())
    attach(session, unit(start=0.5))
    session.call.progress = 0.4
    assert torch.equal(run(host.unet()), plain)
    session.call.progress = 0.5
    assert not torch.equal(run(host.unet()), plain)


def test_ldm_unet_is_styled_in_the_blocks_of_the_same_meaning(
    session: StyleSession, host: TinyHost, tmp_path: Path
) -> None:
    unet = LdmUnet()
    shutil.copytree(host.models, tmp_path / "models")
    save_adapter(base_adapter(unet, POOLED), tmp_path / "models/adapters/ldm.safetensors")
    session.host = TinyHost(unet, tmp_path / "models", tmp_path / "cache")
    attach(session, unit(adapter="ldm", preset="style_and_layout"))
    unet(torch.randn(2, 5, 16), torch.randn(2, 7, CONTEXT))
    hooked = {path for path, module in unet.named_modules() if module._forward_hooks}
    attn2 = {f"{block}.1.transformer_blocks.{k}.attn2" for block in BLOCKS for k in (0, 1)}
    assert hooked == attn2 | {f"{path}.to_q" for path in attn2}
    assert session.call.styled == 4
