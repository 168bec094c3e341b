"""Planning a style job: everything is checked, nothing is loaded, and an error names unit and field."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.errors import (
    AdapterNotFoundError,
    EncoderNotFoundError,
    IncompatibleModelError,
    InstantStyleError,
    PictureError,
    UnitError,
    UnknownBlockError,
)
from lib_instantstyle.units.unit import StyleUnit

from ..jobs import LAYOUT, STYLE, attach, changed_world, hooked_layers, unit
from ..tiny import LdmUnet, TinyHost, encoded, picture, sd15_unet, sdxl_unet

REFUSED = [
    (unit(weight=1.0, start=0.5, end=0.5), UnitError, "start"),
    (unit(image=()), UnitError, "image"),
    (unit(image=("no picture!",)), PictureError, "image"),
    (unit(image=(encoded(picture())[:200],)), PictureError, "image"),
    (unit(adapter="nothing"), AdapterNotFoundError, "adapter"),
    (unit(preset="custom", blocks=(("up_blocks.9", 1.0),)), UnknownBlockError, "blocks"),
    (unit(preset="custom", blocks=(("mid_block", 1.0), ("middle_block", 1.0))), UnknownBlockError, "blocks"),
    (unit(content_image=("no picture!",)), PictureError, "content_image"),
    (unit(negative_image=(encoded(picture())[:200],)), PictureError, "negative_image"),
]


@pytest.mark.parametrize(("bad", "kind", "field"), REFUSED)
def test_plan_error_names_unit_and_field(
    session: StyleSession, bad: StyleUnit, kind: type[InstantStyleError], field: str
) -> None:
    units = [unit(), StyleUnit(enabled=False), bad]
    with pytest.raises(kind) as caught:
        session.plan(units)
    assert (type(caught.value), caught.value.unit, caught.value.field) == (kind, 3, field)


def test_missing_encoder_is_named_in_the_plan(session: StyleSession, host: TinyHost, tmp_path: Path) -> None:
    shutil.copytree(host.models / "adapters", tmp_path / "adapters")
    session.host = TinyHost(host.unet(), tmp_path, tmp_path)
    with pytest.raises(EncoderNotFoundError) as caught:
        session.plan([unit()])
    assert (caught.value.unit, caught.value.field) == (1, "adapter")


def test_sd15_checkpoint_is_refused_by_name(session: StyleSession, host: TinyHost) -> None:
    host.live_unet = sd15_unet()
    with pytest.raises(IncompatibleModelError, match=r"SD 1\.5") as caught:
        session.plan([unit()])
    assert caught.value.unit == 1


def test_planning_loads_and_hooks_nothing(session: StyleSession, host: TinyHost) -> None:
    plans = session.plan([unit(), unit(enabled=False), unit(adapter="plus")])
    assert [plan.number for plan in plans] == [1, 3]
    assert (host.encoder_loads, hooked_layers(host.unet()), session.attached_to) == (0, [], None)


def test_plan_describes_what_was_chosen(session: StyleSession) -> None:
    (plan,) = session.plan([unit(adapter="auto", image=(picture(0), encoded(picture(1))))])
    assert plan.described.adapter == "base"
    assert plan.described.image == tuple(one.hash for one in plan.pictures)
    assert plan.described.preset == "style"


PARTIAL = [("layout", {}), ("style_and_layout", {}), ("original", {}), ("custom", {"blocks": ((LAYOUT, 1.0),)})]


@pytest.mark.parametrize(("preset", "fields"), PARTIAL)
def test_partial_adapter_is_refused_for_blocks_it_lacks(
    world: Path, preset: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    numbers = {2 * layer.index + 1 for layer in attention_layers(sdxl_unet()) if layer.block == STYLE}

    def keep_style(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: t for k, t in tensors.items() if "ip_adapter" not in k or int(k.split(".")[1]) in numbers}

    session = StyleSession(changed_world(world, tmp_path, "base", keep_style))
    attach(session, unit())
    assert {name.partition(".transformer")[0] for name in hooked_layers(session.host.unet())} == {STYLE}
    with pytest.raises(UnknownBlockError, match=LAYOUT.replace(".", r"\.")) as caught:
        session.plan([unit(preset=preset, **fields)])
    assert (caught.value.unit, caught.value.field) == (1, "preset")


def test_adapter_for_other_widths_is_refused(session: StyleSession, host: TinyHost) -> None:
    host.live_unet = LdmUnet()
    with pytest.raises(IncompatibleModelError, match="does not fit") as caught:
        session.plan([unit()])
    assert (caught.value.unit, caught.value.field) == (1, "adapter")
