"""PyTorch files that mean harm: programs, bombs and lies in whatever archive torch reads. Refused, and never run."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.files.adapters import inspect_adapter
from lib_instantstyle.files.containers import mentions
from lib_instantstyle.files.image_encoders import inspect_encoder
from lib_instantstyle.files.text_towers import inspect_text_tower
from lib_instantstyle.reference.store import EmbedStore, PictureStore
from lib_instantstyle.units.errors import CheckpointError

from ..tiny import base_adapter, clip_model, save_adapter, sdxl_unet
from ..tiny.clip import POOLED

KINDS = {"adapter": inspect_adapter, "encoder": inspect_encoder, "text tower": inspect_text_tower}
Inspect = Callable[[Path], Any]


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def inspect(request: pytest.FixtureRequest) -> Inspect:
    return request.param


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is adapter, encoder and text tower at once, as torch.save writes it."""
    path = tmp_path_factory.mktemp("honest") / "honest.bin"
    flat = {f"{part}.{name}": t for part, ts in base_adapter(sdxl_unet(), POOLED).items() for name, t in ts.items()}
    torch.save({**flat, **clip_model().state_dict()}, path)
    return path


def test_the_honest_file_is_read(inspect: Inspect, honest: Path) -> None:
    assert inspect(honest).path == honest


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def repacked(source: Path, path: Path, changed: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive at `source` written anew, with some of its entries replaced or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        root = old.namelist()[0].partition("/")[0]
        contents = {name: old.read(name) for name in old.namelist()}
        for name, data in {**contents, **{f"{root}/{name}": data for name, data in changed.items()}}.items():
            new.writestr(name, data)
    return path


def test_an_archive_with_another_pickle_inside_is_refused_and_not_run(
    inspect: Inspect, honest: Path, tmp_path: Path
) -> None:
    for protocol in (2, 4):
        evil = pickle.dumps({"to_k_ip": Malicious(tmp_path / "pwned")}, protocol)
        with pytest.raises(CheckpointError, match=r"evil\.bin is refused"):
            inspect(repacked(honest, tmp_path / "evil.bin", {"data.pkl": evil}))
    assert not (tmp_path / "pwned").exists()


class Program(nn.Module):
    """A module that writes a file when it is loaded. TorchScript reads its types from comments."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    @torch.jit.export
    def __getstate__(self):
        # type: () -> Tuple[str, bool]
        return self.target, self.training

    @torch.jit.export
    def __setstate__(self, state):
        # type: (Tuple[str, bool]) -> None
        self.target, self.training = state[0], state[1]
        torch.save(torch.ones(1), self.target)

    def forward(self, x):
        # type: (Tensor) -> Tensor
        return x


def test_a_torchscript_archive_is_refused_and_not_run(inspect: Inspect, tmp_path: Path) -> None:
    """Before 2.6 torch ran it, whatever `weights_only` said."""
    torch.jit.script(Program(str(tmp_path / "pwned"))).save(str(tmp_path / "evil.bin"))
    (tmp_path / "pwned").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="TorchScript"):
        inspect(tmp_path / "evil.bin")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", [".bin", ".pth", ".pt", ".ckpt"])
def test_a_tar_archive_is_refused_and_not_unpacked(inspect: Inspect, suffix: str, tmp_path: Path) -> None:
    """As torch wrote it once: three pickles; one of them here, and a link that leads out."""
    evil = pickle.dumps(Malicious(tmp_path / "pwned"), 2)
    with tarfile.open(tmp_path / f"evil{suffix}", "w") as archive:
        for name in ("storages", "tensors", "pickle", "../escaped"):
            entry = tarfile.TarInfo(name)
            entry.size = len(evil)
            archive.addfile(entry, io.BytesIO(evil))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
    with pytest.raises(CheckpointError, match="tar archive"):
        inspect(tmp_path / f"evil{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"evil{suffix}"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused_before_it_is_unpacked(
    inspect: Inspect, honest: Path, compression: int, tmp_path: Path
) -> None:
    bomb = repacked(honest, tmp_path / "bomb.bin", {"data/0": bytes(100_000_000)}, compression)
    assert bomb.stat().st_size < 10_000_000
    with pytest.raises(CheckpointError, match="compressed"):
        inspect(bomb)


def test_an_archive_whose_entries_share_their_bytes_is_refused(inspect: Inspect, honest: Path, tmp_path: Path) -> None:
    """A bomb without compression: many names for one piece of the file."""
    with zipfile.ZipFile(tmp_path / "bomb.bin", "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1_000_000))
        first = archive.infolist()[0]
        for number in range(1000):
            twin = zipfile.ZipInfo(f"archive/data/{number}")
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.compress_size = twin.file_size = first.file_size
            archive.filelist.append(twin)
    with pytest.raises(CheckpointError, match=r"bomb\.bin is refused"):
        inspect(tmp_path / "bomb.bin")


def test_an_archive_with_something_before_it_is_refused(inspect: Inspect, honest: Path, tmp_path: Path) -> None:
    """Readers differ in where they look for the entries of such a file: one would check what another does not run."""
    (tmp_path / "two.bin").write_bytes(honest.read_bytes() * 2)
    with pytest.raises(CheckpointError, match=r"two\.bin is refused"):
        inspect(tmp_path / "two.bin")


def test_looking_for_a_name_unpacks_one_table_and_no_more_than_it_may(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}/data.pkl", bytes(10_000_000) + f"name {number}".encode())
    assert [mentions(tmp_path / "many.bin", f"name {number}") for number in range(3)] == [True, False, False]


def test_dictionaries_that_unfold_without_end_are_refused(inspect: Inspect, tmp_path: Path) -> None:
    """Forty of them, each holding the next one twice, are a million million names."""
    tree: dict[str, Any] = {"to_k_ip": torch.zeros(1)}
    for _ in range(40):
        tree = {"a": tree, "b": tree}
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    for name, content in (("laughs", tree), ("loop", loop)):
        torch.save(content, tmp_path / f"{name}.bin")
        with pytest.raises(CheckpointError, match=f"{name}.bin .*without end"):
            inspect(tmp_path / f"{name}.bin")


ODD_TENSORS: dict[str, Callable[[], Tensor]] = {
    "larger than the file": lambda: torch.zeros(1).expand(10**12),
    "without contents": lambda: torch.empty(4, 4, device="meta"),
    "sparse": lambda: torch.eye(4).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ODD_TENSORS)
def test_tensors_that_no_model_has_are_refused_before_they_are_read(
    inspect: Inspect, name: str, zipped: bool, tmp_path: Path
) -> None:
    torch.save({"weight": ODD_TENSORS[name]()}, tmp_path / "odd.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"odd\.bin"):
        inspect(tmp_path / "odd.bin")


def test_a_pickle_that_makes_something_else_than_tensors_is_refused(inspect: Inspect, tmp_path: Path) -> None:
    """A bytearray is the one thing torch lets a pickle make as large as it likes."""
    torch.save({"weight": torch.zeros(1), "more": bytearray(10)}, tmp_path / "more.bin")
    with pytest.raises(CheckpointError, match="more than tensors"):
        inspect(tmp_path / "more.bin")


def test_a_pickle_in_the_cache_is_not_run(tmp_path: Path) -> None:
    evil, store = pickle.dumps(Malicious(tmp_path / "pwned")), tmp_path / "store"
    store.mkdir()
    (store / "key.safetensors").write_bytes(evil)
    torch.save({"embeds": Malicious(tmp_path / "pwned")}, store / "zipped.safetensors")
    (store / f"{'0' * 32}.png").write_bytes(evil)
    assert EmbedStore(store).get("key") is None
    assert EmbedStore(store).get("zipped") is None
    assert PictureStore(store).get("0" * 32) is None
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_under_the_name_of_a_safetensors_file_is_not_run(inspect: Inspect, tmp_path: Path) -> None:
    torch.save({"to_k_ip": Malicious(tmp_path / "pwned")}, tmp_path / "evil.safetensors")
    with pytest.raises(CheckpointError, match=r"evil\.safetensors is refused"):
        inspect(tmp_path / "evil.safetensors")
    assert not (tmp_path / "pwned").exists()


def test_adapters_as_torch_has_saved_them_over_the_years_are_read(tmp_path: Path) -> None:
    """What is refused above must not cost an honest file."""
    adapter = base_adapter(sdxl_unet(), POOLED)
    torch.save(adapter, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert inspect_adapter(tmp_path / "old.bin").tokens == 4
    assert inspect_adapter(save_adapter(adapter, tmp_path / "new.bin")).tokens == 4
