"""What is encoded once equals what is encoded as it comes, and is encoded once indeed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_instantstyle.standalone.training.batches import EncodedFolder
from lib_instantstyle.standalone.training.cache import Cache
from lib_instantstyle.standalone.training.curve import bars
from lib_instantstyle.standalone.training.draws import Draw
from lib_instantstyle.standalone.training.frozen_encoders import FrozenEncoders
from lib_instantstyle.standalone.training.materials import Materials, Place, open_materials
from lib_instantstyle.units.errors import InstantStyleError

from .conftest import SettingsMaker, write_pictures

DRAWS = [Draw(0, number) for number in range(7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "some", 5)


def opened(settings: Any) -> Materials:
    return open_materials(settings, Place(torch.device("cpu"), torch.float32))


def filled(materials: Materials, share: int = 0, of: int = 1) -> Cache:
    cache = materials.source
    assert isinstance(cache, Cache)
    cache.fill(bars(quiet=True), share, of)
    return cache


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_encoded_once_equals_encoded_as_it_comes(settings: SettingsMaker, folder: Path, kind: str) -> None:
    cache = filled(opened(settings(data=folder, kind=kind)))
    cache.finish()
    stream = opened(settings(data=folder, kind=kind, cache=False)).source
    assert isinstance(stream, EncodedFolder)
    kept, fresh = cache.take(DRAWS), stream.take(DRAWS)
    assert kept.captions == fresh.captions
    for name in ("moments", "features", "time_ids"):
        torch.testing.assert_close(getattr(kept, name), getattr(fresh, name), rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(cache.contexts(["", *kept.captions]), stream.contexts(["", *kept.captions])):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_filling_goes_on_where_it_stopped_and_ends(
    settings: SettingsMaker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    moments = FrozenEncoders.moments
    monkeypatch.setattr(
        FrozenEncoders, "moments", lambda self, pixels: (seen.append(len(pixels)), moments(self, pixels))[1]
    )
    filled(opened(settings(data=folder)), 0, 2)  # what the first of two processes does
    assert sum(seen) == 3
    filled(opened(settings(data=folder)))
    filled(opened(settings(data=folder))).finish()
    assert sum(seen) == 5


def test_the_vae_sees_one_picture_at_a_time(
    settings: SettingsMaker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = opened(settings(data=folder)).encoders
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen: list[int] = []
    encode = encoders.pipe.vae.encode
    with torch.no_grad():
        together = encode(pixels).latent_dist
    monkeypatch.setattr(encoders.pipe.vae, "encode", lambda given: (seen.append(len(given)), encode(given))[1])
    found = encoders.moments(pixels)
    assert seen == [1, 1, 1]  # in float32 a picture of 1024 pixels takes gigabytes
    torch.testing.assert_close(found, torch.stack([together.mean, together.std], dim=1), rtol=1e-5, atol=1e-6)


def test_a_changed_picture_is_encoded_anew(settings: SettingsMaker, folder: Path) -> None:
    before = filled(opened(settings(data=folder)))
    before.finish()
    os.utime(folder / "0.png", (1, 1))
    after = opened(settings(data=folder)).source
    assert isinstance(after, Cache)
    with pytest.raises(InstantStyleError, match="None of the pictures"):
        after.finish()


def test_broken_pictures_are_never_drawn(settings: SettingsMaker, folder: Path) -> None:
    (folder / "9.png").write_bytes(b"no picture")
    (folder / "9.txt").write_text("never")
    cache = filled(opened(settings(data=folder)))
    cache.finish()
    drawn = cache.take([Draw(0, number) for number in range(20)]).captions
    assert "never" not in drawn
    assert [Path(path).name for path in cache.skipped] == ["9.png"]
