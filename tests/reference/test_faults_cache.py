"""A cache that cannot be written, or holds something else than was put there: it costs time, never a picture."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_instantstyle.reference.pictures import read_picture
from lib_instantstyle.reference.store import EMBEDS_BYTES, EmbedStore, PictureStore
from lib_instantstyle.style.session import StyleSession

from ..faults import Shop, open_shop
from ..jobs import unit
from ..tiny import TinyHost, picture

EMBEDS = torch.arange(12.0).reshape(1, 12)


@pytest.fixture
def shop(world: Path, tmp_path: Path) -> Shop:
    return open_shop(world, tmp_path)


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """While it lasts, no file can grow beyond `size` bytes: writing fails as on a full disk, in every library."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)


@pytest.mark.parametrize("size", [0, 64, 300])
def test_a_full_disk_costs_the_entry_and_nothing_else(shop: Shop, size: int) -> None:
    with no_room(size):
        assert torch.equal(shop.draw(), shop.styled)
        assert not list(shop.host.cache.glob("*"))
        assert torch.equal(shop.draw(), shop.styled)
        assert shop.host.encoder_loads == 1  # it is still in memory
    shop.assert_unharmed()


def test_a_full_disk_costs_a_reference_its_copy_and_nothing_else(tmp_path: Path) -> None:
    seen, store = read_picture(picture()), PictureStore(tmp_path / "pictures")
    with no_room(100):
        store.put(seen)
    assert store.get(seen.hash) is None
    assert not list((tmp_path / "pictures").glob("*"))
    store.put(seen)
    assert store.get(seen.hash) is not None


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(EMBEDS_BYTES + 1)


def rewritten(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    return lambda path: save_file({"embeds": change(load_file(str(path))["embeds"])}, str(path))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def endless_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one bit": flip_a_bit,
    "another type": rewritten(lambda embeds: embeds.half()),
    "whole numbers": rewritten(lambda embeds: embeds.long()),
    "another shape": rewritten(lambda embeds: embeds[..., 1:].contiguous()),
    "another size": rewritten(lambda embeds: embeds.repeat(3, 1)),
    "no number": rewritten(lambda embeds: embeds * float("nan")),
    "another name inside": lambda path: save_file({"other": EMBEDS}, str(path)),
    "of another": lambda path: shutil.copy(next(path.parent.glob("grey-*-hidden-*")), path),
    "text": lambda path: path.write_text("damaged"),
    "larger than the whole cache": huge,
    "a folder": folder,
    "a link to itself": endless_link,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_entry_that_is_not_what_was_put_there_is_computed_again(shop: Shop, name: str) -> None:
    shop.draw(unit(adapter="plus"))
    shop.draw()
    (entry,) = shop.host.cache.glob("*-pooled-float32-*.safetensors")
    DAMAGES[name](entry)
    shop.host = TinyHost(shop.host.unet(), shop.host.models, shop.host.cache)
    shop.session = StyleSession(shop.host)
    assert torch.equal(shop.draw(), shop.styled)
    assert shop.host.encoder_loads == 1
    shop.assert_unharmed()


def test_a_damaged_entry_is_written_again(tmp_path: Path) -> None:
    for name in DAMAGES.keys() - {"of another", "a folder"}:
        EmbedStore(tmp_path).put("key", EMBEDS)
        DAMAGES[name](tmp_path / "key.safetensors")
        assert EmbedStore(tmp_path).get("key") is None, name
        EmbedStore(tmp_path).put("key", EMBEDS)
        assert torch.equal(EmbedStore(tmp_path).get("key"), EMBEDS)


def test_an_entry_under_another_name_is_none(tmp_path: Path) -> None:
    EmbedStore(tmp_path).put("key", EMBEDS)
    (tmp_path / "key.safetensors").rename(tmp_path / "other.safetensors")
    assert EmbedStore(tmp_path).get("other") is None


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    """The file's reader gives a window into the file; whoever cuts the file then would end the process."""
    EmbedStore(tmp_path).put("key", EMBEDS)
    store = EmbedStore(tmp_path)
    read = store.get("key")
    with (tmp_path / "key.safetensors").open("r+b") as file:
        file.seek(-48, 2)
        file.write(bytes(48))
    assert torch.equal(read, EMBEDS)
    (tmp_path / "key.safetensors").write_bytes(b"")
    assert torch.equal(store.get("key"), EMBEDS)


def test_threads_that_write_one_entry_leave_a_whole_one(tmp_path: Path) -> None:
    store = EmbedStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.put("key", EMBEDS), range(40)))
    assert [path.name for path in tmp_path.iterdir()] == ["key.safetensors"]
    assert torch.equal(EmbedStore(tmp_path).get("key"), EMBEDS)


def bomb(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


def another(path: Path) -> None:
    picture(1).save(path)


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n")


@pytest.mark.parametrize("damage", [postscript, bomb, another, lambda path: path.write_bytes(b"")])
def test_a_kept_picture_that_is_another_is_not_shown_and_kept_anew(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **_: run.append(args))
    seen, store = read_picture(picture()), PictureStore(tmp_path)
    store.put(seen)
    damage(tmp_path / f"{seen.hash}.png")
    assert store.get(seen.hash) is None
    assert not run
    store.put(seen)
    assert store.get(seen.hash).tobytes() == seen.image.tobytes()
