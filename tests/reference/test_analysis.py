"""What a reference shows and what is left of its content, against the same by hand; and what it costs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_instantstyle.reference import names
from lib_instantstyle.reference.analysis import Analysis, Analyst, Meter, Parts
from lib_instantstyle.reference.content import auto, auto_scale, cosines, project, subtract
from lib_instantstyle.reference.embedding import BATCH
from lib_instantstyle.reference.vocabulary import vocabulary
from lib_instantstyle.units.errors import InstantStyleError, PictureError, TextTowerNotFoundError, UnitError
from lib_instantstyle.units.phrases import PROBES
from lib_instantstyle.units.unit import StyleUnit

from ..by_hand import World
from ..jobs import unit
from ..tiny import TinyHost, clip_model, encoded, picture, sdxl_unet
from ..tiny.clip import POOLED

PROMPT = "a rabbit, (a forest:1.3)"


@pytest.fixture
def by_hand(world: Path) -> World:
    return World(world)


@pytest.fixture
def analyst(host: TinyHost, monkeypatch: pytest.MonkeyPatch) -> Analyst:
    """On a host that must not be asked for a UNet."""
    monkeypatch.setattr(host, "unet", lambda: pytest.fail("the UNet was asked for"))
    return Analyst(host)


def costs(host: TinyHost) -> tuple[int, int]:
    """Loads of encoders and text towers, and encodings by the checkpoint's own text tower."""
    return host.encoder_loads, host.text_encodings


def texts(host: TinyHost, *phrases: str) -> torch.Tensor:
    return torch.cat([host.text_embeds(phrase) for phrase in phrases])


@pytest.mark.parametrize("adapter", ["base", "plus", "auto"])
def test_words_come_with_their_plain_cosines(analyst: Analyst, host: TinyHost, by_hand: World, adapter: str) -> None:
    found = analyst.analyse(unit(image=(picture(0), picture(1)), adapter=adapter), count=10)
    e = torch.cat([by_hand.image_embeds(0), by_hand.image_embeds(1)])
    assert len({word.text for word in found.words}) == 10
    for word in found.words:
        assert word.text in vocabulary()
        assert word.score == pytest.approx(cosines(e, host.text_embeds(word.text)).mean().item(), abs=1e-5)
    assert found.meter == Meter((), None)


def test_the_word_that_the_picture_is_made_of_comes_first(
    analyst: Analyst, host: TinyHost, by_hand: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = host.text_embeds
    shown = by_hand.image_embeds(0)
    monkeypatch.setattr(host, "text_embeds", lambda text: shown if text == "lighthouse" else plain(text))
    best = analyst.analyse(unit()).words[0]
    assert (best.text, best.score) == ("lighthouse", pytest.approx(1.0))


@pytest.mark.parametrize("method", ["subtract", "project", "auto", "off"])
def test_meter_tells_each_phrase_before_and_after(
    analyst: Analyst, host: TinyHost, by_hand: World, method: str
) -> None:
    found = analyst.meter(unit(content_prompt=PROMPT, content_method=method, content_scale=0.8))
    e, parts = by_hand.image_embeds(0), texts(host, "a rabbit", "a forest")
    weights, levels = torch.tensor([1.0, 1.3]), cosines(e, texts(host, *PROBES)).median(dim=1, keepdim=True).values
    whole = host.text_embeds(PROMPT)
    after = {
        "subtract": subtract(e, whole, 0.8),
        "project": project(e, parts, 0.8, weights),
        "auto": auto(e, parts, 0.8, levels.expand(-1, 2), weights),
        "off": e,
    }[method]
    rows = whole if method == "subtract" else parts
    assert [leak.text for leak in found.phrases] == ([PROMPT] if method == "subtract" else ["a rabbit", "a forest"])
    assert [leak.before for leak in found.phrases] == pytest.approx(cosines(e, rows)[0].tolist(), abs=1e-5)
    assert [leak.after for leak in found.phrases] == pytest.approx(cosines(after, rows)[0].tolist(), abs=1e-5)
    assert found.auto_scale == pytest.approx(auto_scale(e, parts, levels.expand(-1, 2), weights).item(), abs=1e-5)


def test_nothing_goes_at_scale_zero_and_the_meter_says_so(analyst: Analyst) -> None:
    found = analyst.meter(unit(content_prompt="a rabbit", content_scale=0.0))
    assert [leak.after for leak in found.phrases] == pytest.approx([leak.before for leak in found.phrases])
    assert found.auto_scale is not None


def test_pictures_to_remove_follow_the_phrases(analyst: Analyst, by_hand: World) -> None:
    asked = unit(content_prompt="a rabbit", content_image=(picture(1), picture(2)), content_method="project")
    found = analyst.meter(asked)
    assert [leak.text for leak in found.phrases] == ["a rabbit", "picture 1", "picture 2"]
    removed = torch.cat([by_hand.image_embeds(seed) for seed in (1, 2)])
    before = cosines(by_hand.image_embeds(0), removed)[0].tolist()
    assert [leak.before for leak in found.phrases[1:]] == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("adapter", ["base", "plus"])
@pytest.mark.parametrize("method", ["subtract", "project", "auto"])
def test_removal_lowers_what_is_there(analyst: Analyst, host: TinyHost, adapter: str, method: str) -> None:
    asked = unit(adapter=adapter, content_image=(picture(0),), content_method=method, content_scale=1.0)
    (leak,) = analyst.meter(asked).phrases
    assert leak.before == pytest.approx(1.0, abs=1e-5)
    assert leak.after < 0.99


def forbid_loading(host: TinyHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("room_for_encoder", "checkpoint_text_embeds"):
        monkeypatch.setattr(host, name, lambda *args, name=name: pytest.fail(f"{name} was called"))


@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_meter_follows_the_sliders_without_encoding(
    analyst: Analyst, host: TinyHost, adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"adapter": adapter, "content_prompt": PROMPT, "image": (encoded(picture(0)),)}
    asked |= {"content_image": (encoded(picture(1)),)}
    analyst.analyse(unit(**asked))
    analyst.meter(unit(**asked))
    forbid_loading(host, monkeypatch)
    for name in ("analysis.read_patch_head", "analysis.read_picture", "pictures._open"):
        monkeypatch.setattr(f"lib_instantstyle.reference.{name}", lambda *args, name=name: pytest.fail(f"{name} again"))
    for method in ("subtract", "project", "auto", "off"):
        for scale in (0.0, 0.3, 2.0):
            for renorm in (False, True):
                asked |= {"content_method": method, "content_scale": scale, "content_renorm": renorm}
                assert len(analyst.meter(unit(**asked)).phrases) == (2 if method == "subtract" else 3)
    analyst.analyse(unit(**asked))


@pytest.mark.parametrize("adapter", ["base", "plus"])
@pytest.mark.parametrize("method", ["subtract", "auto"])
def test_meter_looks_at_each_file_once(
    with_tower: TinyHost, adapter: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyst = Analyst(with_tower)
    asked = unit(adapter=adapter, content_prompt="a, b, c, d", content_method=method, image=(encoded(picture(0)),))
    analyst.meter(asked)
    looked: list[Path] = []
    plain = names.fingerprint
    monkeypatch.setattr(names, "fingerprint", lambda path, **more: (looked.append(path), plain(path, **more))[1])
    analyst.meter(asked)
    assert looked
    assert len(looked) == len(set(looked))


@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_an_analyst_keeps_no_pixels(analyst: Analyst, adapter: str) -> None:
    fields = {"image": (encoded(picture(0)),), "content_image": (encoded(picture(1)),)}
    analyst.meter(unit(adapter=adapter, **fields))
    assert len(analyst._pictures) == 2
    assert all(one._image is None for one in analyst._pictures.values())


def test_an_analysis_that_pauses_comes_to_the_same(host: TinyHost) -> None:
    turns: list[object] = []
    analyst = Analyst(host)
    while (found := analyst.analyse_until(lambda: True, unit(), count=5)) is None:
        turns.append(host.text_encodings)
        assert len(turns) < 100
    assert len(turns) == -(-len(vocabulary()) // BATCH) - 1
    assert found == analyst.analyse(unit(), count=5)


def test_a_new_phrase_costs_one_text_and_no_picture(analyst: Analyst, host: TinyHost) -> None:
    analyst.meter(unit(content_prompt="a rabbit", content_method="auto"))
    before = costs(host)
    analyst.meter(unit(content_prompt="a rabbit, snow", content_method="auto"))
    assert costs(host) == (before[0], before[1] + 1)


def test_analysis_loads_the_encoder_once_and_the_vocabulary_is_never_read_again(
    analyst: Analyst, host: TinyHost
) -> None:
    first = analyst.analyse(unit())
    loads, encodings = costs(host)
    assert loads == 1
    restarted = TinyHost(host.live_unet, host.models, host.cache)
    assert Analyst(restarted).analyse(unit()) == first
    assert costs(restarted) == (0, 0)
    analyst.analyse(unit(image=(picture(3),)))
    assert costs(host) == (2, encodings)


def test_no_words_need_no_vocabulary_and_no_text_tower(host: TinyHost) -> None:
    without = TinyHost(host.live_unet, host.models, host.cache, text_width=POOLED + 1)
    assert Analyst(without).analyse(unit(), count=0) == Analysis((), Meter((), None), Parts("base", "model", None))
    assert costs(without) == (1, 0)
    for asked, count in ((unit(), 1), (unit(content_prompt="a rabbit"), 0)):
        with pytest.raises(TextTowerNotFoundError, match="full CLIP model"):
            Analyst(without).analyse(asked, count=count)


def test_progress_starts_at_nothing_ends_at_all_and_never_goes_back(analyst: Analyst) -> None:
    heard: list[tuple[float, str]] = []
    analyst.analyse(unit(), progress=lambda share, doing: heard.append((share, doing)))
    shares = [share for share, _ in heard]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares == sorted(shares)
    assert len(heard) > 20
    assert any("vocabulary" in doing for _, doing in heard)


def test_what_only_generation_needs_may_be_missing(analyst: Analyst) -> None:
    asked = unit(preset="custom", blocks=None, start=0.9, end=0.1, weight=0.0, enabled=False)
    assert analyst.analyse(asked, count=1).words


@pytest.mark.parametrize(
    ("asked", "kind", "field"),
    [
        (unit(image=()), UnitError, "image"),
        (unit(image=("no picture!",)), PictureError, "image"),
        (unit(content_image=("no picture!",)), PictureError, "content_image"),
        (unit(adapter="nothing"), InstantStyleError, "adapter"),
    ],
)
def test_errors_name_the_field(analyst: Analyst, asked: StyleUnit, kind: type[InstantStyleError], field: str) -> None:
    for ask in (analyst.analyse, analyst.meter):
        with pytest.raises(kind) as caught:
            ask(asked)
        assert caught.value.field == field


def test_a_prompt_of_no_phrase_has_no_meter(analyst: Analyst) -> None:
    assert analyst.meter(unit(content_prompt=" , ", content_method="auto")) == Meter((), None)


@pytest.fixture
def with_tower(world: Path, tmp_path: Path) -> TinyHost:
    """A host whose checkpoint has no text encoder of the adapter's space, with a full CLIP model among the files."""
    shutil.copytree(world, tmp_path / "world")
    clip_model().save_pretrained(tmp_path / "world/encoders/zz-full", safe_serialization=True)
    return TinyHost(sdxl_unet(), tmp_path / "world", tmp_path / "cache", text_width=None)


def test_a_tower_from_a_file_is_loaded_once_for_the_whole_vocabulary(with_tower: TinyHost) -> None:
    analyst = Analyst(with_tower)
    assert len(analyst.analyse(unit()).words) == 24
    assert costs(with_tower) == (2, 0)  # the image encoder, the text tower
    analyst.analyse(unit())
    assert costs(with_tower) == (2, 0)


def test_parts_are_named(analyst: Analyst, with_tower: TinyHost) -> None:
    own, by_file = analyst.parts(unit(adapter="auto")), Analyst(with_tower).parts(unit(adapter="plus"))
    assert (own.adapter, own.encoder, own.text_tower) == ("base", "model", "checkpoint")
    assert (by_file.adapter, by_file.text_tower) == ("plus", "model")


@pytest.mark.parametrize("adapter", ["base", "plus"])
def test_measure_compares_with_the_cleaned_reference_the_phrases_and_the_prompt(
    analyst: Analyst, host: TinyHost, by_hand: World, adapter: str
) -> None:
    fields = {"content_prompt": PROMPT, "content_method": "project", "content_scale": 0.7}
    asked = unit(adapter=adapter, **fields)
    found = analyst.measure(asked, picture(5), "a (house:1.2) <lora:thing:1> BREAK by the sea")
    seen, parts = by_hand.image_embeds(5), texts(host, "a rabbit", "a forest")
    if adapter == "base":
        cleaned = project(by_hand.image_embeds(0), parts, 0.7, torch.tensor([1.0, 1.3]))
        assert found.style == pytest.approx(cosines(cleaned, seen).item(), abs=1e-5)
    assert found.content == pytest.approx(cosines(seen, parts).max().item(), abs=1e-5)
    assert found.prompt == pytest.approx(cosines(seen, host.text_embeds("a house, by the sea")).item(), abs=1e-5)


def test_measure_without_content_has_none_and_the_reference_is_like_itself(analyst: Analyst, host: TinyHost) -> None:
    for adapter in ("base", "plus"):
        found = analyst.measure(unit(adapter=adapter), picture(0), "")
        assert found.style == pytest.approx(1.0, abs=1e-5)
        assert found.content is None
    assert analyst.measure(unit(content_prompt="a rabbit", content_method="off"), picture(0), "").content is None


def test_measuring_keeps_nothing_of_the_result(analyst: Analyst, host: TinyHost) -> None:
    analyst.measure(unit(), picture(5), "a house")
    files, (loads, encodings) = sorted(host.cache.iterdir()), costs(host)
    analyst.measure(unit(), picture(6), "a house")
    assert sorted(host.cache.iterdir()) == files
    assert costs(host) == (loads + 1, encodings)
