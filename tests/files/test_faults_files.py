"""Model files that are cut, damaged, deleted or replaced: a refusal by name, and the next job is right."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.errors import (
    AdapterNotFoundError,
    CheckpointError,
    EncoderNotFoundError,
    TextTowerNotFoundError,
)

from ..faults import PLACES, Shop, away, open_shop, overwrite
from ..jobs import run, unit
from ..tiny import TinyHost, base_adapter, clip_model, picture, save_adapter, sdxl_unet, vision_model
from ..tiny.clip import POOLED

Change = Callable[[dict[str, Tensor]], object]
STYLE_KEYS = [f"ip_adapter.{number}.to_{kind}_ip.weight" for number in (17, 19) for kind in "kv"]


@pytest.fixture
def shop(world: Path, tmp_path: Path) -> Shop:
    return open_shop(world, tmp_path)


@contextmanager
def changed(path: Path, change: Change) -> Iterator[None]:
    """While it lasts, the file's tensors are changed."""
    whole, tensors = path.read_bytes(), {name: tensor.clone() for name, tensor in load_file(str(path)).items()}
    change(tensors)
    save_file(tensors, str(path))
    try:
        yield
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("place", PLACES)
def test_a_cut_adapter_is_refused_by_name_before_and_after_the_plan(shop: Shop, place: float) -> None:
    whole = shop.adapter.read_bytes()
    cut, plans = whole[: int(place * len(whole))], shop.session.plan([unit()])
    shop.adapter.write_bytes(cut)
    with pytest.raises(CheckpointError, match=r"base\.safetensors is (truncated or broken|an empty file)"):
        shop.session.attach(plans)
    refused = shop.refuses()
    assert (refused.unit, refused.field) == (1, "adapter")
    assert "base" in refused.message
    shop.adapter.write_bytes(whole)
    shop.assert_unharmed()


@pytest.mark.parametrize("suffix", [".bin", ".pth"])
def test_a_cut_pickle_is_refused_by_name(shop: Shop, suffix: str) -> None:
    path = save_adapter(base_adapter(sdxl_unet(), POOLED), shop.adapter.with_name(f"pickled{suffix}"))
    whole = path.read_bytes()
    for place in PLACES:
        path.write_bytes(whole[: int(place * len(whole))])
        assert "pickled" in shop.refuses(unit(adapter="pickled")).message
    path.write_bytes(whole)
    assert torch.equal(shop.draw(unit(adapter="pickled")), shop.styled)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64, torch.complex64], ids=str)
@pytest.mark.parametrize("part", ["image_proj.", "ip_adapter."])
def test_an_adapter_of_another_type_of_number_is_refused(shop: Shop, dtype: torch.dtype, part: str) -> None:
    if dtype not in safetensors.torch._SIZE:
        pytest.skip(f"this release of safetensors writes no {dtype}")

    def cast(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: t.to(dtype) for name, t in tensors.items() if name.startswith(part)})

    with changed(shop.adapter, cast):
        refused = shop.refuses()
    assert refused.message.startswith("base.safetensors stores")
    assert f" as {str(dtype).removeprefix('torch.')}; weights must be floating-point" in refused.message
    shop.assert_unharmed()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_an_adapter_of_any_floating_point_type_is_read(shop: Shop, dtype: torch.dtype) -> None:
    with changed(shop.adapter, lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()})):
        torch.testing.assert_close(shop.draw(), shop.styled, rtol=0.1, atol=0.05)
    shop.assert_unharmed()


WRONG_NUMBERS = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30]
BEFORE_THE_NORM = ["image_proj.proj.weight", "image_proj.proj.bias"]  # which may tame a large number
WEIGHTS = [*STYLE_KEYS[:2], "image_proj.norm.weight"]


def with_number(key: str, number: float) -> Change:
    return lambda tensors: tensors[key].view(-1)[0].fill_(number)


@pytest.mark.parametrize("number", WRONG_NUMBERS)
def test_an_adapter_with_one_number_that_is_none_is_refused(shop: Shop, number: float) -> None:
    for key in WEIGHTS if abs(number) == 1e30 else [*WEIGHTS, *BEFORE_THE_NORM]:
        with changed(shop.adapter, with_number(key, number)):
            assert "base.safetensors is damaged" in shop.refuses().message
    shop.assert_unharmed()


def test_a_number_too_large_for_single_precision_is_refused(shop: Shop) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        tensors[STYLE_KEYS[0]] = tensors[STYLE_KEYS[0]].double()
        tensors[STYLE_KEYS[0]][0, 0] = 1e300

    with changed(shop.adapter, damage):
        assert "NaN or infinite" in shop.refuses().message
    shop.assert_unharmed()


def test_an_adapter_that_is_deleted_between_jobs_is_missed(shop: Shop) -> None:
    """Even where its keys and values are still known."""
    assert torch.equal(shop.draw(), shop.styled)
    with away(shop.adapter):
        refused = shop.refuses()
        assert isinstance(refused, AdapterNotFoundError)
        assert "other" in refused.message
        assert not torch.equal(shop.draw(unit(adapter="auto")), shop.styled)
    shop.assert_unharmed()


@pytest.mark.parametrize("lasting", [True, False])
def test_an_adapter_that_is_replaced_by_one_of_the_same_size_and_time_is_noticed(
    shop: Shop, world: Path, tmp_path: Path, lasting: bool
) -> None:
    """Between jobs, or between the plan of a job and its work."""
    assert torch.equal(shop.draw(), shop.styled)
    plans, other = shop.session.plan([unit()]), shop.adapter.with_name("other.safetensors").read_bytes()
    whole = shop.adapter.read_bytes()
    assert len(whole) == len(other)
    overwrite(shop.adapter, other)
    if lasting:
        plans = shop.session.plan([unit()])
    shop.session.attach(plans)
    shop.session.call.cond_rows = (False, True)
    found = run(shop.host.unet())
    shop.session.detach()
    (tmp_path / "fresh").mkdir()
    assert torch.equal(found, open_shop(world, tmp_path / "fresh").draw(unit(adapter="other")))
    overwrite(shop.adapter, whole)
    shop.assert_unharmed()


def test_an_adapter_that_becomes_one_of_another_kind_after_the_plan_is_refused(shop: Shop) -> None:
    plans, whole = shop.session.plan([unit()]), shop.adapter.read_bytes()
    shutil.copy(shop.adapter.with_name("plus.safetensors"), shop.adapter)
    with pytest.raises(CheckpointError, match="was replaced"):
        shop.session.attach(plans)
    shop.adapter.write_bytes(whole)
    shop.assert_unharmed()


def test_a_missing_encoder_is_named_and_so_is_a_cut_one(shop: Shop) -> None:
    whole = shop.encoder.read_bytes()
    with away(shop.encoder):
        assert isinstance(shop.refuses(), EncoderNotFoundError)
    for place in PLACES[2:]:
        shop.encoder.write_bytes(whole[: int(place * len(whole))])
        refused = shop.refuses()
        assert isinstance(refused, EncoderNotFoundError)
        assert "model.safetensors is truncated or broken" in refused.message
    shop.encoder.write_bytes(whole)
    shop.assert_unharmed()


def test_an_encoder_that_is_cut_after_the_plan_is_refused(shop: Shop) -> None:
    plans, whole = shop.session.plan([unit()]), shop.encoder.read_bytes()
    shop.encoder.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or broken"):
        shop.session.attach(plans)
    shop.encoder.write_bytes(whole)
    shop.assert_unharmed()


@pytest.mark.parametrize("damage", [torch.Tensor.bool, torch.Tensor.char, lambda t: t * float("nan")])
def test_a_damaged_encoder_is_refused_and_leaves_nothing_in_the_cache(shop: Shop, damage: Change) -> None:
    def every(tensors: dict[str, Tensor]) -> None:
        tensors.update({name: damage(t) for name, t in tensors.items()})

    with changed(shop.encoder, every):
        assert "model.safetensors" in shop.refuses().message
        assert "model.safetensors" in shop.refuses(unit(adapter="plus")).message
    assert not list(shop.host.cache.glob("*"))
    shop.assert_unharmed()


def test_an_encoder_that_is_replaced_by_one_of_the_same_size_and_time_is_noticed(shop: Shop) -> None:
    assert torch.equal(shop.draw(), shop.styled)
    whole = shop.encoder.read_bytes()
    kept = load_file(str(shop.encoder))
    tensors = {name: 1.1 * tensor if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    save_file(tensors, str(shop.host.cache / "other"), {"format": "pt"})
    other = (shop.host.cache / "other").read_bytes()
    assert len(other) == len(whole)
    overwrite(shop.encoder, other)
    assert not torch.equal(shop.draw(), shop.styled)
    assert shop.host.encoder_loads == 2
    overwrite(shop.encoder, whole)
    shop.assert_unharmed()
    assert shop.host.encoder_loads == 2


class SwappingHost(TinyHost):
    """A host whose encoder file changes just when it is read."""

    @contextmanager
    def room_for_encoder(self) -> Iterator[None]:
        vision_model("quick_gelu").save_pretrained(self.models / "encoders/tiny", safe_serialization=True)
        yield


def test_an_encoder_that_is_replaced_while_it_is_read_is_no_error_of_ours(shop: Shop) -> None:
    shop.host = SwappingHost(shop.host.unet(), shop.host.models, shop.host.cache)
    shop.session = StyleSession(shop.host)
    shop.draw(unit(image=(picture(), picture(1))))


def test_a_cut_or_missing_text_tower_is_named(world: Path, tmp_path: Path) -> None:
    shop = open_shop(world, tmp_path)
    shop.host = TinyHost(shop.host.unet(), shop.host.models, shop.host.cache, text_width=None)
    shop.session = StyleSession(shop.host)
    full = shop.host.models / "encoders/zz-full"
    clip_model().save_pretrained(full, safe_serialization=True)
    asked = unit(content_prompt="a rabbit", content_scale=1.0)
    wanted = shop.draw(asked)
    assert not torch.equal(wanted, shop.styled)
    tower = full / "model.safetensors"
    whole = tower.read_bytes()
    for place in PLACES[2:]:
        tower.write_bytes(whole[: int(place * len(whole))])
        refused = shop.refuses(asked)
        assert isinstance(refused, TextTowerNotFoundError)
        assert (refused.field, "is truncated or broken" in refused.message) == ("content_prompt", True)
    with away(tower):
        assert isinstance(shop.refuses(asked), TextTowerNotFoundError)
    tower.write_bytes(whole)
    assert torch.equal(shop.draw(asked), wanted)
    shop.assert_unharmed()
