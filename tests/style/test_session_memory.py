"""What a session computes once: embeddings, keys and values; and what they are computed from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lib_instantstyle.reference.store import EmbedStore
from lib_instantstyle.style.session import KEPT_UNITS, StyleSession
from lib_instantstyle.units.errors import CheckpointError

from ..by_hand import CLOSE, World, attach
from ..jobs import unit
from ..tiny import TinyHost, encoded, picture, sdxl_unet, vision_model


@pytest.fixture
def by_hand(world: Path) -> World:
    return World(world)


def test_same_picture_never_loads_the_encoder_again(session: StyleSession, host: TinyHost) -> None:
    attach(session, unit())
    assert host.encoder_loads == 1
    attach(session, unit(preset="original", image=(encoded(picture()),)), unit(adapter="other"))
    StyleSession(host).plan([unit()])
    attach(session, unit(image=(picture(), picture())))
    assert host.encoder_loads == 1


def test_same_picture_needs_no_encoder_after_a_restart(session: StyleSession, host: TinyHost, tmp_path: Path) -> None:
    before = attach(session, unit(adapter="plus"))
    restarted = TinyHost(sdxl_unet(), host.models, tmp_path / "cache")
    after = attach(StyleSession(restarted), unit(adapter="plus"))
    assert restarted.encoder_loads == 0
    assert all(torch.equal(after[layer][0], key) for layer, (key, _) in before.items())


def test_each_feature_and_each_new_picture_loads_the_encoder_once(session: StyleSession, host: TinyHost) -> None:
    attach(session, unit(), unit(adapter="plus"))
    assert host.encoder_loads == 2
    attach(session, unit(image=(picture(), picture(1), picture(2))))
    assert host.encoder_loads == 3


def test_another_encoder_file_makes_new_embeddings(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    host = TinyHost(sdxl_unet(), tmp_path / "world", tmp_path / "cache")
    session = StyleSession(host)
    first = attach(session, unit())
    vision_model("quick_gelu").save_pretrained(tmp_path / "world/encoders/tiny", safe_serialization=True)
    second = attach(session, unit())
    assert host.encoder_loads == 2
    assert not any(torch.equal(second[layer][0], key) for layer, (key, _) in first.items())


def test_damaged_cache_is_computed_again(session: StyleSession, host: TinyHost, tmp_path: Path) -> None:
    before = attach(session, unit())
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    host.embed_store = EmbedStore(tmp_path / "cache")
    after = attach(session, unit())
    assert host.encoder_loads == 2
    assert all(torch.equal(after[layer][0], key) for layer, (key, _) in before.items())


def test_keys_and_values_are_kept_and_only_missing_layers_are_added(session: StyleSession) -> None:
    style = attach(session, unit(weight=0.3))
    session.detach()
    (kept,) = session._kept.values()
    assert kept.keys() == style.keys()
    more = attach(session, unit(preset="original", weight=2.0, start=0.5))
    assert more.keys() > style.keys()
    assert all(more[layer][0] is key and more[layer][1] is value for layer, (key, value) in style.items())


def test_other_picture_adapter_or_content_has_keys_of_its_own(session: StyleSession) -> None:
    variants = [{}, {"image": (picture(1),)}, {"adapter": "other"}, {"content_prompt": "a rabbit"}]
    found = [attach(session, unit(**fields)) for fields in variants]
    firsts = [next(iter(keys.values()))[0] for keys in found]
    assert not any(one is two for at, one in enumerate(firsts) for two in firsts[:at])


def test_number_of_kept_units_is_bounded(session: StyleSession) -> None:
    for number in range(KEPT_UNITS + 3):
        attach(session, unit(image=(picture(number, (8, 8)),)))
    assert len(session._kept) == KEPT_UNITS


def test_adapter_that_vanished_after_the_plan_is_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    session = StyleSession(TinyHost(sdxl_unet(), tmp_path / "world", tmp_path / "cache"))
    plans = session.plan([unit()])
    (tmp_path / "world/adapters/base.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"base\.safetensors") as caught:
        session.attach(plans)
    assert caught.value.unit == 1


def test_keys_are_those_of_picture_and_of_no_picture(session: StyleSession, by_hand: World) -> None:
    embeds = by_hand.image_embeds(0)
    for layer, (key, _) in attach(session, unit()).items():
        cond, uncond = by_hand.tokens(embeds)[0], by_hand.tokens(torch.zeros_like(embeds))[0]
        torch.testing.assert_close(key, by_hand.key(torch.stack([uncond, cond]), layer), **CLOSE)


def test_several_pictures_stand_side_by_side_and_uncond_is_repeated(session: StyleSession, by_hand: World) -> None:
    embeds = torch.cat([by_hand.image_embeds(seed) for seed in (2, 0)])
    for layer, (key, _) in attach(session, unit(image=(picture(2), picture(0)))).items():
        cond = by_hand.tokens(embeds).flatten(0, 1)
        uncond = by_hand.tokens(torch.zeros_like(embeds)).flatten(0, 1)
        torch.testing.assert_close(key, by_hand.key(torch.stack([uncond, cond]), layer), **CLOSE)


@pytest.mark.parametrize("method", ["subtract", "project"])
def test_content_prompt_changes_cond_by_the_official_arithmetic_and_uncond_not_at_all(
    session: StyleSession, host: TinyHost, by_hand: World, method: str
) -> None:
    plain = attach(session, unit())
    fields = {"content_prompt": "a rabbit", "content_scale": 0.8, "content_method": method}
    without = attach(session, unit(**fields))
    embeds, text = by_hand.image_embeds(0), host.text_embeds("a rabbit")
    share = 1.0 if method == "subtract" else (embeds @ text.T) / (text @ text.T)
    tokens = by_hand.tokens(embeds - 0.8 * share * text)[0]
    for layer, (key, value) in without.items():
        assert torch.equal(key[0], plain[layer][0][0])
        assert torch.equal(value[0], plain[layer][1][0])
        torch.testing.assert_close(key[1], by_hand.key(tokens, layer), **CLOSE)
        assert (key[1] - plain[layer][0][1]).abs().max() > 0.1


def test_text_is_not_encoded_when_nothing_is_removed(session: StyleSession, host: TinyHost) -> None:
    attach(session, unit(content_prompt="a rabbit", content_scale=0.0), unit(content_prompt=" "))
    assert host.text_encodings == 0


def test_plus_adapter_takes_the_grey_picture_for_no_picture(session: StyleSession, by_hand: World) -> None:
    with torch.no_grad():
        hidden = by_hand.encoder(torch.zeros(1, 3, 32, 32), output_hidden_states=True).hidden_states[-2]
    attach(session, unit(adapter="plus"))
    stored = [session.host.embed_store.get(path.stem) for path in session.host.cache.glob("grey-*")]
    torch.testing.assert_close(stored, [hidden], **CLOSE)


class CrowdedHost(TinyHost):
    """A host whose device has no room for an encoder."""

    @contextmanager
    def room_for_encoder(self) -> Iterator[None]:
        self.encoder_loads += 1
        raise torch.cuda.OutOfMemoryError("out of memory")
        yield


def test_encoder_that_does_not_fit_the_device_runs_on_the_cpu(
    session: StyleSession, host: TinyHost, tmp_path: Path
) -> None:
    crowded = CrowdedHost(sdxl_unet(), host.models, tmp_path / "crowded")
    found, wanted = attach(StyleSession(crowded), unit()), attach(session, unit())
    assert crowded.encoder_loads == 1
    assert all(torch.equal(found[layer][0], key) for layer, (key, _) in wanted.items())
