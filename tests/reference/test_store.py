"""What is kept on disk comes back whole or not at all, and never stops a job."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lib_instantstyle.files.image_encoders import Feature, inspect_encoder
from lib_instantstyle.files.text_towers import inspect_text_tower
from lib_instantstyle.reference import names
from lib_instantstyle.reference import store as stores
from lib_instantstyle.reference.names import (
    embeds_key,
    encoder_name,
    fingerprint,
    sampled_content,
    text_key,
    tower_name,
    words_key,
)
from lib_instantstyle.reference.pictures import Picture, read_picture
from lib_instantstyle.reference.store import MEMORY_ENTRIES, EmbedStore, PictureStore, prune
from lib_instantstyle.units.errors import CheckpointError

from ..tiny import clip_model, picture
from ..tiny.clip import HIDDEN, POOLED

EMBEDS = torch.arange(12.0).reshape(1, 12)


@pytest.fixture
def seen() -> Picture:
    return read_picture(picture())


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_embedding_comes_back_from_memory_and_from_disk(tmp_path: Path) -> None:
    store = EmbedStore(tmp_path)
    store.put("key", EMBEDS)
    for one in (store, EmbedStore(tmp_path)):
        assert torch.equal(one.get("key"), EMBEDS)
        assert one.get("other") is None


def test_view_of_a_larger_tensor_is_kept_as_what_it_shows(tmp_path: Path) -> None:
    EmbedStore(tmp_path).put("key", EMBEDS.reshape(3, 4).T[1:3])
    assert torch.equal(EmbedStore(tmp_path).get("key"), EMBEDS.reshape(3, 4).T[1:3])


@pytest.mark.parametrize("length", [0, 4, 8, 60, -1])
def test_damaged_entry_is_as_good_as_none_and_can_be_written_again(length: int, tmp_path: Path) -> None:
    EmbedStore(tmp_path).put("key", EMBEDS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:length])
    store = EmbedStore(tmp_path)
    assert store.get("key") is None
    store.put("key", EMBEDS)
    assert torch.equal(EmbedStore(tmp_path).get("key"), EMBEDS)


def test_entry_with_values_that_are_no_numbers_is_as_good_as_none(tmp_path: Path) -> None:
    EmbedStore(tmp_path).put("key", torch.tensor([1.0, float("nan")]))
    assert EmbedStore(tmp_path).get("key") is None


def test_memory_is_bounded_and_disk_remembers_the_rest(tmp_path: Path) -> None:
    store = EmbedStore(tmp_path)
    for number in range(MEMORY_ENTRIES + 5):
        store.put(str(number), torch.full((1,), float(number)))
    assert len(store._recent) == MEMORY_ENTRIES
    assert store.get("0").item() == 0.0


def test_unwritable_folder_costs_the_entry_and_nothing_else(tmp_path: Path, seen: Picture) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    store = EmbedStore(tmp_path / "file")
    store.put("key", EMBEDS)
    assert torch.equal(store.get("key"), EMBEDS)
    assert EmbedStore(tmp_path / "file").get("key") is None
    pictures = PictureStore(tmp_path / "file")
    pictures.put(seen)
    assert pictures.get(seen.hash) is None


def test_file_system_that_refuses_everything_costs_the_entry_and_nothing_else(
    tmp_path: Path, seen: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = PictureStore(tmp_path)
    pictures.put(seen)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(30, "Read-only file system")

    for name in ("utime", "unlink", "replace", "rename", "mkdir"):
        monkeypatch.setattr(os, name, refuse)
    pictures.put(seen)
    pictures.put(read_picture(picture(1)))
    EmbedStore(tmp_path).put("key", EMBEDS)


def test_nothing_half_written_is_left(tmp_path: Path, seen: Picture) -> None:
    EmbedStore(tmp_path).put("key", EMBEDS)
    PictureStore(tmp_path).put(seen)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".png"}


def test_picture_comes_back_pixel_for_pixel(tmp_path: Path, seen: Picture) -> None:
    PictureStore(tmp_path).put(seen)
    assert PictureStore(tmp_path).get(seen.hash).tobytes() == seen.image.tobytes()
    assert PictureStore(tmp_path).get("0" * 32) is None


def test_picture_that_is_not_the_same_any_more_is_not_given_out(tmp_path: Path, seen: Picture) -> None:
    store = PictureStore(tmp_path)
    store.put(seen)
    picture(1).save(tmp_path / f"{seen.hash}.png")
    assert store.get(seen.hash) is None
    (tmp_path / f"{seen.hash}.png").write_bytes(b"no picture")
    assert store.get(seen.hash) is None


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", ".", "A" * 32, "0" * 31, "0" * 33, "0" * 32 + "\n"])
def test_hash_that_is_no_hash_opens_nothing(name: str, tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "store").mkdir()
    assert PictureStore(tmp_path / "store").path(name) is None
    assert PictureStore(tmp_path / "store").get(name) is None


def test_embedding_that_is_read_counts_as_used(tmp_path: Path) -> None:
    for number in range(3):
        EmbedStore(tmp_path).put(f"key{number}", EMBEDS)
        age(tmp_path / f"key{number}.safetensors", seconds=10 - number)
    assert EmbedStore(tmp_path).get("key0") is not None
    prune(tmp_path, limit=(tmp_path / "key0.safetensors").stat().st_size)
    assert [path.stem for path in tmp_path.iterdir()] == ["key0"]


def test_prune_deletes_the_files_used_longest_ago(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / str(number)).write_bytes(bytes(10))
        age(tmp_path / str(number), seconds=number)
    prune(tmp_path, limit=25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_picture_that_is_used_again_is_pruned_last(tmp_path: Path, seen: Picture) -> None:
    store = PictureStore(tmp_path)
    for one in (seen, read_picture(picture(1))):
        store.put(one)
        age(tmp_path / f"{one.hash}.png", seconds=100 if one is seen else 50)
    store.put(seen)
    prune(tmp_path, limit=(tmp_path / f"{seen.hash}.png").stat().st_size)
    assert [path.stem for path in tmp_path.iterdir()] == [seen.hash]


def test_prune_of_a_missing_folder_is_harmless(tmp_path: Path) -> None:
    prune(tmp_path / "nowhere", limit=0)


def test_fingerprint_changes_with_either_end_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "encoder"
    prints = []
    for content in (bytes(3 << 20), b"1" + bytes((3 << 20) - 1), bytes((3 << 20) - 1) + b"1", bytes(4 << 20)):
        file.write_bytes(content)
        os.utime(file, (1, 1))
        prints.append(fingerprint(file))
    os.utime(file, (2, 2))
    prints.append(fingerprint(file))
    assert len(set(prints)) == len(prints)


def test_a_copy_has_the_same_content_whatever_its_time(tmp_path: Path) -> None:
    first, second = tmp_path / "a.bin", tmp_path / "b.bin"
    for file in (first, second):
        file.write_bytes(b"x" * 100)
    os.utime(second, (1, 1))
    assert sampled_content(first) == sampled_content(second)
    assert fingerprint(first) != fingerprint(second)
    second.write_bytes(b"x" * 99 + b"y")
    assert sampled_content(first) != sampled_content(second)


def test_fingerprint_of_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors"):
        fingerprint(tmp_path / "gone.safetensors")


def test_key_tells_picture_encoder_and_feature_apart(world: Path) -> None:
    info = inspect_encoder(world / "encoders/tiny/model.safetensors")
    features = [Feature("pooled", POOLED), Feature("hidden", HIDDEN)]
    hashes, dtypes = ("0" * 32, "1" * 32), (torch.float32, torch.float16, torch.bfloat16)
    name = encoder_name(info)
    assert len({embeds_key(one, name, of, dtype) for one in hashes for of in features for dtype in dtypes}) == 12


def test_key_tells_texts_and_towers_apart(world: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for path, act in zip(paths, ("gelu", "quick_gelu")):
        save_file(dict(clip_model(act).state_dict()), str(path))
    os.utime(paths[1], (1, 1))
    towers = [tower_name(inspect_text_tower(path)) for path in paths]
    texts, dtypes = ("a rabbit", "a Rabbit", "", "\ud800"), (torch.float32, torch.float16)
    assert len({text_key(text, tower, dtype) for text in texts for tower in towers for dtype in dtypes}) == 16


def test_everything_kept_is_named_anew_when_it_is_read_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> set[str]:
        made = torch.float32
        return {
            embeds_key("0" * 32, "encoder", Feature("pooled", POOLED), made),
            text_key("a rabbit", "tower", made),
            words_key(("a rabbit",), "tower", made),
        }

    before = keys()
    monkeypatch.setattr(names, "READING", names.READING + 1)
    assert not before & keys()


def listings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are listed from now on."""
    listed: list[Path] = []
    plain = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: (listed.append(self), plain(self))[1])
    return listed


def test_the_cache_is_listed_once_however_much_is_written(
    tmp_path: Path, seen: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = listings(monkeypatch)
    store, pictures = EmbedStore(tmp_path / "embeds"), PictureStore(tmp_path / "pictures")
    for number in range(20):
        store.put(str(number), EMBEDS)
        pictures.put(read_picture(picture(number)))
    assert listed == [tmp_path / "embeds", tmp_path / "pictures"]


def test_a_full_cache_stays_within_its_limit_and_is_not_listed_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    EmbedStore(tmp_path).put("old", EMBEDS)
    size = (tmp_path / "old.safetensors").stat().st_size
    age(tmp_path / "old.safetensors", seconds=1000)
    limit = 40 * size
    monkeypatch.setattr(stores, "EMBEDS_BYTES", limit)
    store, listed = EmbedStore(tmp_path), listings(monkeypatch)
    for number in range(200):
        store.put(str(number), EMBEDS)
        held = sum(one.stat().st_size for one in map(Path, os.scandir(tmp_path)))
        assert held <= limit + 2 * size
    assert len(listed) < 200 / 3
    assert not (tmp_path / "old.safetensors").exists()
    assert (tmp_path / "199.safetensors").exists()


def test_what_another_process_has_kept_before_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        EmbedStore(tmp_path).put(str(number), EMBEDS)
        age(tmp_path / f"{number}.safetensors", seconds=100 - number)
    monkeypatch.setattr(stores, "EMBEDS_BYTES", 4 * (tmp_path / "0.safetensors").stat().st_size)
    EmbedStore(tmp_path).put("new", EMBEDS)
    assert len(list(tmp_path.iterdir())) <= 4
    assert (tmp_path / "new.safetensors").exists()
