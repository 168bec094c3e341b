"""WebDataset shards: read as a stream, shared among processes, gone on with anywhere."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from lib_instantstyle.standalone.training.shards import ShardSamples, find_shards, members
from lib_instantstyle.units.errors import InstantStyleError

from ...tiny import picture


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three shards of four samples."""
    for shard in range(3):
        files = {}
        for number in range(4):
            files[f"{shard}{number}.png"] = png(number)
            files[f"{shard}{number}.txt"] = f"caption {shard}{number}\n".encode()
        write_shard(tmp_path / f"{shard}.tar", files)
    return find_shards(tmp_path)


def drawn(samples: ShardSamples, count: int) -> list[str]:
    return [samples.sample().captions[0] for _ in range(count)]


def test_shards_are_named_by_folder_file_or_pattern(shards: list[Path], tmp_path: Path) -> None:
    assert [path.name for path in shards] == ["0.tar", "1.tar", "2.tar"]
    assert find_shards(tmp_path / "1.tar") == [shards[1]]
    assert find_shards(tmp_path / "[01]*.tar") == shards[:2]
    assert find_shards(tmp_path / "nothing.tar") == []


def test_captions_come_from_text_or_json_which_may_hold_several(tmp_path: Path) -> None:
    told = json.dumps({"caption": ["one", "two"], "url": "…"}).encode()
    files = {"x/a.png": png(0), "x/a.txt": b"text", "x/a.json": told, "x/b.jpg": png(1), "x/b.txt": b"text"}
    found = [member.sample() for member in members(write_shard(tmp_path / "s.tar", {**files, "x/c.png": png(2)}))]
    assert [sample.captions for sample in found] == [("one", "two"), ("text",), ("",)]


def test_captions_in_shards_have_the_endings_that_they_have_in_folders(tmp_path: Path) -> None:
    files = {"a.png": png(0), "a.TXT": b"one", "b.PNG": png(1), "b.caption": b"two"}
    found = [member.sample() for member in members(write_shard(tmp_path / "s.tar", files))]
    assert [sample.captions for sample in found] == [("one",), ("two",)]


def test_shards_in_nested_folders_are_found_and_hidden_ones_passed_over(tmp_path: Path) -> None:
    for name in ("0.tar", "part/laion.v1.1.tar", "part/._2.tar", "__MACOSX/3.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / name, {"a.png": png(0)})
    assert [path.name for path in find_shards(tmp_path)] == ["0.tar", "laion.v1.1.tar"]
    assert find_shards(tmp_path / "part/laion.v1.1.tar") == [tmp_path / "part/laion.v1.1.tar"]


def test_pictures_beside_shards_are_refused_not_passed_over(shards: list[Path], tmp_path: Path) -> None:
    picture(0).save(tmp_path / "a.png")
    with pytest.raises(InstantStyleError, match=r"shards like 0\.tar and pictures like a\.png"):
        find_shards(tmp_path)


@pytest.mark.parametrize(("ending", "mode"), [("tar.gz", "gz"), ("tgz", "gz"), ("tar.bz2", "bz2"), ("tar.xz", "xz")])
def test_compressed_shards_are_read(tmp_path: Path, ending: str, mode: str) -> None:
    with tarfile.open(tmp_path / f"s.{ending}", f"w:{mode}") as archive:
        for name, data in {"a.png": png(0), "a.txt": b"text"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (shard,) = find_shards(tmp_path)
    assert [member.sample().captions for member in members(shard)] == [("text",)]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(InstantStyleError, match="truncated"):
        list(members(shard))


def test_a_compression_that_python_does_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.tar.zst").write_bytes(b"compressed")
    with pytest.raises(InstantStyleError, match=r"s\.tar\.zst is compressed"):
        find_shards(tmp_path)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"IMG.0001.png": b"", "IMG.0002.png": b""}, "behind the first dot"),
        ({"metadata.jsonl": b"{}"}, "table inside a shard"),
    ],
)
def test_what_shards_hold_and_nobody_reads_is_named_with_its_reason(
    tmp_path: Path, files: dict[str, bytes], told: str
) -> None:
    shard = write_shard(tmp_path / "s.tar", files)
    with pytest.raises(InstantStyleError, match=told):
        ShardSamples([shard], 0, 0, 1).sample()


def test_each_epoch_has_every_sample_once_in_another_order(shards: list[Path]) -> None:
    samples = ShardSamples(shards, 0, 0, 1)
    epochs = [drawn(samples, 12) for _ in range(3)]
    assert all(len(set(epoch)) == 12 for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3


def test_processes_share_the_shards(shards: list[Path]) -> None:
    first, second = (ShardSamples(shards, 0, process, 2) for process in range(2))
    assert len({*drawn(first, 8), *drawn(second, 4)}) == 12
    with pytest.raises(InstantStyleError, match="4 processes"):
        ShardSamples(shards, 0, 0, 4)


@pytest.mark.parametrize("taken", [0, 5, 12, 17])
def test_a_stream_goes_on_where_it_stood(shards: list[Path], taken: int) -> None:
    samples, later = ShardSamples(shards, 0, 0, 1), ShardSamples(shards, 0, 0, 1)
    drawn(samples, taken)
    later.seek(samples.position())
    assert drawn(later, 15) == drawn(samples, 15)


def test_bad_samples_are_named_and_skipped(tmp_path: Path) -> None:
    files = {"a.png": b"broken", "b.txt": b"alone", "c.png": png(0), "d.png": png(1), "d.json": b"{", ".hidden": b"x"}
    samples = ShardSamples([write_shard(tmp_path / "s.tar", files)], 0, 0, 1)
    assert [samples.sample().name for _ in range(3)] == ["s.tar:c"] * 3
    assert set(samples.skipped) == {"s.tar:a", "s.tar:b", "s.tar:d"}


def test_shards_without_a_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InstantStyleError, match="None of the pictures"):
        ShardSamples([write_shard(tmp_path / "s.tar", {"a.png": b"broken"})], 0, 0, 1).sample()


def test_a_shard_cut_short_is_refused_by_name(shards: list[Path]) -> None:
    shards[0].write_bytes(shards[0].read_bytes()[:700])
    with pytest.raises(InstantStyleError, match=r"0\.tar"):
        list(members(shards[0]))
