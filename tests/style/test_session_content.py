"""What a session takes out of a reference reaches the keys and values, and costs no encoding twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_instantstyle.files.adapters import Adapter
from lib_instantstyle.files.image_encoders import inspect_encoder
from lib_instantstyle.reference.content import Content, auto, auto_scale, cosines, project
from lib_instantstyle.reference.embedding import Embedder
from lib_instantstyle.reference.patches import read_patch_head, remove_from_patches
from lib_instantstyle.reference.removal import Reference, auto_scales, content_phrases, leaks, read_reference
from lib_instantstyle.style.session import StyleSession
from lib_instantstyle.units.errors import IncompatibleModelError, TextTowerNotFoundError
from lib_instantstyle.units.phrases import PROBES

from ..by_hand import CLOSE, World, attach
from ..jobs import run, unit
from ..tiny import TinyHost, clip_model, picture, sdxl_unet
from ..tiny.clip import POOLED

PROMPT = "a rabbit, (a forest:1.3)"


@pytest.fixture
def by_hand(world: Path) -> World:
    return World(world)


@pytest.fixture
def with_tower(world: Path, tmp_path: Path) -> TinyHost:
    """A host whose checkpoint has no text encoder of the adapter's space, with a full CLIP model among the files."""
    shutil.copytree(world, tmp_path / "world")
    clip_model().save_pretrained(tmp_path / "world/encoders/zz-full", safe_serialization=True)
    return TinyHost(sdxl_unet(), tmp_path / "world", tmp_path / "cache", text_width=None)


@torch.no_grad()
def tower_embeds(*texts: str) -> Tensor:
    """transformers' own, with the tiny host's tokens."""
    rows = [[97, *(ord(letter) % 97 for letter in text), 98] for text in texts]
    padded = torch.tensor([row + [98] * (77 - len(row)) for row in rows])
    found = clip_model().get_text_features(input_ids=padded)
    return getattr(found, "pooler_output", found)  # a record since transformers 5


def removed(host: TinyHost, e: Tensor, method: str) -> Tensor:
    """e without PROMPT at a scale of 0.8, written out."""
    if method == "subtract":
        return e - 0.8 * host.text_embeds(PROMPT)
    texts, weights = torch.cat([host.text_embeds(text) for text in ("a rabbit", "a forest")]), torch.tensor([1.0, 1.3])
    if method == "project":
        return project(e, texts, 0.8, weights)
    probes = torch.cat([host.text_embeds(text) for text in PROBES])
    return auto(e, texts, 0.8, cosines(e, probes).median(dim=1, keepdim=True).values.expand(-1, 2), weights)


def expect(found: dict[int, tuple[Tensor, Tensor]], by_hand: World, cond: Tensor, uncond: Tensor | None = None) -> None:
    """The keys of every layer are those of these embeddings."""
    uncond = torch.zeros_like(cond[:1]) if uncond is None else uncond
    rows = torch.stack([by_hand.tokens(uncond)[0].repeat(len(cond), 1), by_hand.tokens(cond).flatten(0, 1)])
    for layer, (key, _) in found.items():
        torch.testing.assert_close(key, by_hand.key(rows, layer), **CLOSE)


@pytest.mark.parametrize("renorm", [False, True])
@pytest.mark.parametrize("method", ["subtract", "project", "auto"])
def test_keys_change_exactly_as_the_method_says(
    session: StyleSession, host: TinyHost, by_hand: World, method: str, renorm: bool
) -> None:
    fields = {"content_prompt": PROMPT, "content_scale": 0.8, "content_method": method, "content_renorm": renorm}
    found = attach(session, unit(image=(picture(0), picture(1)), **fields))
    e = torch.cat([by_hand.image_embeds(0), by_hand.image_embeds(1)])
    after = removed(host, e, method)
    assert (after - e).norm() > 0.1
    expect(found, by_hand, after * e.norm(dim=1, keepdim=True) / after.norm(dim=1, keepdim=True) if renorm else after)


@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_off_changes_no_bit_and_encodes_nothing(session: StyleSession, host: TinyHost, adapter: str) -> None:
    plain = attach(session, unit(adapter=adapter))
    loads = host.encoder_loads
    fields = {"content_prompt": PROMPT, "content_image": (picture(5),), "content_method": "off"}
    off = attach(session, unit(adapter=adapter, **fields))
    assert all(torch.equal(off[layer][0], key) for layer, (key, _) in plain.items())
    assert (host.text_encodings, host.encoder_loads) == (0, loads)


@pytest.mark.parametrize("method", ["subtract", "project", "auto"])
def test_pictures_are_removed_by_the_same_method_and_scale(
    session: StyleSession, host: TinyHost, by_hand: World, method: str
) -> None:
    fields = {"content_image": (picture(1), picture(2)), "content_method": method, "content_scale": 0.4}
    found = attach(session, unit(**fields))
    e, c = by_hand.image_embeds(0), torch.cat([by_hand.image_embeds(seed) for seed in (1, 2)])
    levels = cosines(e, by_hand.grey_embeds()).expand(-1, 2)
    after = {
        "subtract": e - 0.4 * c.mean(dim=0, keepdim=True),
        "project": project(e, c, 0.4),
        "auto": auto(e, c, 0.4, levels),
    }
    expect(found, by_hand, after[method])
    assert (host.encoder_loads, host.text_encodings) == (1, 0)


def test_words_and_pictures_go_together(session: StyleSession, host: TinyHost, by_hand: World) -> None:
    found = attach(session, unit(content_prompt="a rabbit", content_image=(picture(1),), content_method="project"))
    both = torch.cat([host.text_embeds("a rabbit"), by_hand.image_embeds(1)])
    expect(found, by_hand, project(by_hand.image_embeds(0), both, 0.5))


def test_negative_picture_stands_on_the_unconditional_side_and_nowhere_else(
    session: StyleSession, host: TinyHost, by_hand: World
) -> None:
    found = attach(session, unit(image=(picture(0), picture(1)), negative_image=(picture(2),)))
    e = torch.cat([by_hand.image_embeds(0), by_hand.image_embeds(1)])
    expect(found, by_hand, e, by_hand.image_embeds(2))
    assert host.encoder_loads == 1


def test_negative_picture_takes_the_grey_ones_place_with_a_plus_adapter(
    session: StyleSession, by_hand: World, world: Path
) -> None:
    plain = attach(session, unit(adapter="plus"))
    found = attach(session, unit(adapter="plus", negative_image=(picture(2),)))
    adapter = Adapter(session.host.files.adapter("plus"))
    tokens = adapter.projection()(by_hand.hidden(2))[0]
    for layer, (key, _) in found.items():
        weight = by_hand.adapters["plus"][f"ip_adapter.{2 * layer + 1}.to_k_ip.weight"]
        torch.testing.assert_close(key[0], tokens @ weight.T, **CLOSE)
        assert torch.equal(key[1], plain[layer][0][1])


@pytest.mark.parametrize("method", ["project", "auto"])
def test_plus_adapter_loses_content_from_its_patches(
    session: StyleSession, host: TinyHost, by_hand: World, world: Path, method: str
) -> None:
    fields = {"content_prompt": PROMPT, "content_scale": 0.8, "content_method": method}
    found = attach(session, unit(adapter="plus", **fields))
    texts = torch.cat([host.text_embeds(text) for text in ("a rabbit", "a forest")])
    probes = torch.cat([host.text_embeds(text) for text in PROBES])
    head = read_patch_head(inspect_encoder(world / "encoders/tiny/model.safetensors"))
    content = Content(texts, torch.tensor([1.0, 1.3]), (probes, probes))
    hidden, grey = by_hand.hidden(0), by_hand.hidden(None)
    after = remove_from_patches(method, hidden, content, 0.8, head)
    assert (after - hidden).norm() > 0.1
    projection = Adapter(session.host.files.adapter("plus")).projection()
    for layer, (key, _) in found.items():
        weight = by_hand.adapters["plus"][f"ip_adapter.{2 * layer + 1}.to_k_ip.weight"]
        torch.testing.assert_close(key[1], projection(after)[0] @ weight.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(key[0], projection(grey)[0] @ weight.T, **CLOSE)


def test_every_setting_has_keys_of_its_own(session: StyleSession) -> None:
    said = {"content_prompt": PROMPT}
    variants: list[dict[str, Any]] = [
        {},
        said,
        {"content_prompt": "a rabbit, a forest"},
        {**said, "content_scale": 0.6},
        {**said, "content_method": "project"},
        {**said, "content_method": "project", "content_prompt": "a rabbit, a forest"},
        {**said, "content_method": "auto"},
        {**said, "content_renorm": True},
        {**said, "content_image": (picture(1),)},
        {"content_image": (picture(1),)},
        {"content_image": (picture(2),)},
        {"content_image": (picture(1), picture(2))},
        {"negative_image": (picture(1),)},
        {"negative_image": (picture(2),)},
    ]
    for adapter in ("base", "plus"):
        found = [next(iter(attach(session, unit(adapter=adapter, **fields)).values()))[0] for fields in variants]
        if adapter == "base":
            assert not any(torch.equal(one, two) for at, one in enumerate(found) for two in found[:at])
        again = attach(session, unit(adapter=adapter, **variants[-1]))
        assert next(iter(again.values()))[0] is found[-1]


def test_text_tower_of_a_full_clip_model_is_loaded_once_for_a_text(
    with_tower: TinyHost, by_hand: World, tmp_path: Path
) -> None:
    session = StyleSession(with_tower)
    attach(session, unit(adapter="base"))
    assert with_tower.encoder_loads == 1
    found = attach(session, unit(content_prompt="a rabbit", content_scale=0.3))
    expect(found, by_hand, by_hand.image_embeds(0) - 0.3 * tower_embeds("a rabbit"))
    assert (with_tower.encoder_loads, with_tower.text_encodings) == (2, 0)
    attach(session, unit(content_prompt="a rabbit", content_method="project"), unit(content_prompt="a rabbit"))
    assert with_tower.encoder_loads == 2
    restarted = TinyHost(sdxl_unet(), with_tower.models, tmp_path / "cache", text_width=None)
    attach(StyleSession(restarted), unit(content_prompt="a rabbit"))
    assert restarted.encoder_loads == 0


def test_all_texts_that_are_not_known_go_through_the_tower_in_one_loading(with_tower: TinyHost) -> None:
    session = StyleSession(with_tower)
    attach(session, unit(content_prompt=PROMPT, content_method="auto"))
    assert with_tower.encoder_loads == 2  # the picture, the texts with all probes
    attach(session, unit(content_prompt=f"{PROMPT}, snow", content_method="auto"))
    assert with_tower.encoder_loads == 3
    attach(session, unit(content_prompt="snow, a rabbit", content_method="auto", adapter="plus"))
    assert with_tower.encoder_loads == 4  # the plus adapter's feature, and no text


class CrowdedHost(TinyHost):
    """A host whose device has no room for any model."""

    @contextmanager
    def room_for_encoder(self) -> Iterator[None]:
        self.encoder_loads += 1
        raise torch.cuda.OutOfMemoryError("out of memory")
        yield


def test_text_tower_that_does_not_fit_the_device_runs_on_the_cpu(with_tower: TinyHost, tmp_path: Path) -> None:
    crowded = CrowdedHost(sdxl_unet(), with_tower.models, tmp_path / "crowded", text_width=None)
    fields = {"content_prompt": "a rabbit", "content_method": "auto"}
    found, wanted = (attach(StyleSession(host), unit(**fields)) for host in (crowded, with_tower))
    assert crowded.encoder_loads == 2
    assert all(torch.equal(found[layer][0], key) for layer, (key, _) in wanted.items())


def test_pristine_tower_is_used_only_when_it_is_asked_for(with_tower: TinyHost, by_hand: World, tmp_path: Path) -> None:
    host = TinyHost(sdxl_unet(), with_tower.models, tmp_path / "cache")
    session, fields = StyleSession(host), {"content_prompt": "a rabbit", "content_scale": 1.0}
    expect(attach(session, unit(**fields)), by_hand, by_hand.image_embeds(0) - host.text_embeds("a rabbit"))
    host.pristine_text = True
    expect(attach(session, unit(**fields)), by_hand, by_hand.image_embeds(0) - tower_embeds("a rabbit"))
    assert host.text_encodings == 1


@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_missing_text_tower_is_named_in_the_plan_and_only_where_words_are_to_go(host: TinyHost, adapter: str) -> None:
    session = StyleSession(TinyHost(host.unet(), host.models, host.cache, text_width=POOLED + 1))
    with pytest.raises(TextTowerNotFoundError, match="full CLIP model") as caught:
        session.plan([unit(), unit(adapter=adapter, content_prompt="a rabbit")])
    assert (caught.value.unit, caught.value.field) == (2, "content_prompt")
    session.plan([unit(adapter=adapter, content_prompt="a rabbit", content_scale=0.0)])
    session.plan([unit(adapter=adapter, content_prompt="a rabbit", content_method="off")])
    attach(session, unit(adapter=adapter, content_image=(picture(1),)))


def test_tower_without_any_tokenizer_is_refused(with_tower: TinyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_tower, "tokenizer", lambda: None)
    with pytest.raises(TextTowerNotFoundError, match=r"vocab\.json and merges\.txt") as caught:
        attach(StyleSession(with_tower), unit(content_prompt="a rabbit"))
    assert (caught.value.unit, caught.value.field) == (1, "content_prompt")


def test_text_encoder_of_a_checkpoint_that_gives_no_numbers_is_refused(
    session: StyleSession, host: TinyHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "checkpoint_text_embeds", lambda texts: torch.full((len(texts), POOLED), torch.nan))
    with pytest.raises(IncompatibleModelError, match="NaN or infinite"):
        attach(session, unit(content_prompt="a rabbit"))


@pytest.mark.parametrize("prompt", [",", "((,))", "(a rabbit:0)", "[" * 50])
def test_prompt_that_says_nothing_removes_nothing(session: StyleSession, prompt: str) -> None:
    plain = attach(session, unit())
    for method in ("project", "auto"):
        found = attach(session, unit(content_prompt=prompt, content_method=method))
        assert all(torch.equal(found[layer][0], key) for layer, (key, _) in plain.items())


def test_plan_describes_all_pictures_by_their_hashes(session: StyleSession) -> None:
    (plan,) = session.plan([unit(content_image=(picture(1), picture(2)), negative_image=(picture(3),))])
    assert [len(getattr(plan.described, name)) for name in ("image", "content_image", "negative_image")] == [1, 2, 1]
    described = plan.described.image + plan.described.content_image + plan.described.negative_image
    assert described == tuple(one.hash for one in plan.all_pictures)


def reference(session: StyleSession, **fields: Any) -> Reference:
    (plan,) = session.plan([unit(**fields)])
    return read_reference(plan, Embedder(session.host))


def test_leaks_tell_each_phrase_before_and_after_without_encoding(session: StyleSession, host: TinyHost) -> None:
    fields = {"content_prompt": PROMPT, "content_method": "project", "content_scale": 1.0}
    found = reference(session, **fields)
    texts = [phrase.text for phrase in content_phrases(unit(**fields))]
    embeds = torch.cat([host.text_embeds(text) for text in texts])
    encodings = host.encoder_loads, host.text_encodings
    told = leaks(found, texts, embeds)
    assert [leak.text for leak in told] == ["a rabbit", "a forest"]
    assert [leak.before for leak in told] == pytest.approx(cosines(found.cond, embeds)[0].tolist())
    assert [leak.after for leak in told] == pytest.approx(cosines(found.cleaned(), embeds)[0].tolist())
    unmoved = leaks(found, texts, embeds, found.cleaned(replace(found.how, strength=0.0)))
    assert [leak.after for leak in unmoved] == pytest.approx([leak.before for leak in told])
    assert (host.encoder_loads, host.text_encodings) == encodings


def test_leaks_of_a_plus_adapter_are_those_of_the_picture_the_encoder_would_see(
    session: StyleSession, host: TinyHost, by_hand: World
) -> None:
    found = reference(session, adapter="plus", content_prompt="a rabbit", content_method="project", content_scale=1.0)
    embeds = host.text_embeds("a rabbit")
    (told,) = leaks(found, ["a rabbit"], embeds)
    assert told.before == pytest.approx(cosines(by_hand.image_embeds(0), embeds).item(), abs=1e-5)
    after = found.head.pooled(found.cleaned())
    assert told.after == pytest.approx(cosines(after, embeds).item(), abs=1e-6)


def test_auto_of_a_unit_hits_its_level(session: StyleSession, host: TinyHost) -> None:
    found = reference(session, content_prompt="a rabbit", content_method="auto", content_scale=1.0)
    assert found.content is not None
    levels = found.content.levels(found.cond)
    embeds = host.text_embeds("a rabbit")
    now, after = cosines(found.cond, embeds), cosines(found.cleaned(), embeds)
    torch.testing.assert_close(after, torch.minimum(levels, now), rtol=0, atol=1e-5)
    assert torch.equal(auto_scales(found), auto_scale(found.cond, embeds, levels, torch.ones(1)))
    by_project = project(found.cond, embeds, auto_scales(found).item())
    torch.testing.assert_close(by_project, found.cleaned(), **CLOSE)


def test_auto_scale_is_zero_where_nothing_is_to_go(session: StyleSession) -> None:
    for fields in ({}, {"content_prompt": ",", "content_method": "auto"}, {"adapter": "plus"}):
        assert auto_scales(reference(session, **fields)).tolist() == [0.0]


def test_weight_zero_and_window_stay_what_they_were_with_removal(session: StyleSession, host: TinyHost) -> None:
    plain = run(host.unet())
    session.attach(session.plan([unit(weight=0.0, content_prompt=PROMPT, negative_image=(picture(2),))]))
    assert torch.equal(run(host.unet()), plain)
    assert (host.encoder_loads, host.text_encodings) == (0, 0)


def test_world_of_these_tests_holds_the_tower_beside_the_encoder(with_tower: TinyHost) -> None:
    names = load_file(str(with_tower.models / "encoders/zz-full/model.safetensors"))
    assert any(name.startswith("text_model.") for name in names)
