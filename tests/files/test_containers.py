"""What a file is by its contents: endings decide nothing, and what is no model is called what it is."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_instantstyle.files.adapters import inspect_adapter
from lib_instantstyle.files.containers import container_of, mentions
from lib_instantstyle.files.image_encoders import Feature, inspect_encoder
from lib_instantstyle.files.installed import ModelFiles
from lib_instantstyle.files.tensor_files import open_tensors
from lib_instantstyle.units.errors import AdapterNotFoundError, CheckpointError, EncoderNotFoundError

from ..published import install
from ..tiny import base_adapter, save_adapter, save_shards, sdxl_unet, vision_model
from ..tiny.clip import POOLED

ENDINGS = [".safetensors", ".bin", ".pth", ".pt", ".ckpt"]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:ba1002529e78\nsize 702585376\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One adapter in each container."""
    folder, adapter = tmp_path_factory.mktemp("written"), base_adapter(sdxl_unet(), POOLED)
    torch.save(adapter, folder / "old.bin", _use_new_zipfile_serialization=False)
    return {
        "safetensors": save_adapter(adapter, folder / "a.safetensors"),
        "zip": save_adapter(adapter, folder / "a.bin"),
        "pickle": folder / "old.bin",
    }


@pytest.mark.parametrize("ending", [*ENDINGS, ".SAFETENSORS", ".Bin", ".PTH"])
@pytest.mark.parametrize("container", ["safetensors", "zip", "pickle"])
def test_contents_decide_not_endings(written: dict[str, Path], container: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"adapter{ending}"
    shutil.copy(written[container], path)
    assert container_of(path) == container
    assert mentions(path, "to_k_ip")
    files = ModelFiles(lambda: [tmp_path], list)
    assert files.adapter("adapter").path == files.adapter("auto").path == path
    assert files.adapter(path.name).tokens == 4


def test_an_index_in_capitals_with_shards_in_capitals_is_read(tmp_path: Path) -> None:
    index = save_shards(dict(vision_model().state_dict()), tmp_path)
    loud = index.rename(index.with_name(index.name.upper()))
    for shard in tmp_path.glob("*.safetensors"):
        shard.rename(shard.with_suffix(".SAFETENSORS"))
    loud.write_text(loud.read_text().replace(".safetensors", ".SAFETENSORS"))
    assert [info.path for info in ModelFiles(list, lambda: [tmp_path]).encoders.usable()] == [loud]


STRANGERS = {
    "empty": (b"", "is an empty file"),
    "pointer": (POINTER.encode(), "is a Git LFS pointer"),
    "xet pointer": (b"# xet version 0\nfilesize = 702585376\nhash = 'ba10'\n", "is a Git LFS pointer"),
    "page": (b"<!DOCTYPE html>\n<html><head><title>h94/IP-Adapter</title>", "is a web page"),
    "page of old": (b"\xef\xbb\xbf \r\n<HTML>to_k_ip class_embedding</HTML>", "is a web page"),
    "answer": (b"Entry not found", "is a text file"),
    "refusal": (b'{"error": "Access to model is restricted"}', "is a text file"),
    "hole": (bytes(4096), "begins with zeros only"),
    "archive": (gzip.compress(b"to_k_ip" * 100), "a packed archive"),
}


@pytest.mark.parametrize("ending", [*ENDINGS, ".SAFETENSORS"])
@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_model_is_called_what_it_is_where_somebody_looks_for_it(
    kind: str, ending: str, tmp_path: Path
) -> None:
    content, what = STRANGERS[kind]
    path = tmp_path / f"ip-adapter_sdxl{ending}"
    path.write_bytes(content)
    files = ModelFiles(lambda: [tmp_path], lambda: [tmp_path])
    sought: list[Callable[[], object]] = [
        lambda: files.adapter("auto"),
        lambda: files.adapter("ip-adapter_sdxl"),
        lambda: files.encoder(Feature("pooled", 1280)),
        lambda: inspect_adapter(path),
        lambda: inspect_encoder(path),
    ]
    for look in sought:
        with pytest.raises((AdapterNotFoundError, CheckpointError, EncoderNotFoundError)) as caught:
            look()
        assert f"{path.name} {what}" in caught.value.message or what in caught.value.message
        assert path.name in caught.value.message
    assert [what in error.message for error in files.adapters.unusable()] == [True]


def test_a_usable_file_of_the_name_goes_before_one_that_is_none(tmp_path: Path) -> None:
    install("ip-adapter_sdxl", tmp_path / "shared")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/ip-adapter_sdxl.safetensors").write_text(POINTER)
    files = ModelFiles(lambda: [tmp_path / "own", tmp_path / "shared"], list)
    assert files.adapter("ip-adapter_sdxl").path.parent.name == "shared"


def test_of_a_folder_full_of_pointers_a_few_are_named_and_all_are_counted(tmp_path: Path) -> None:
    """As `git clone` leaves a repository without Git LFS; they go before files of other kinds."""
    install("ip-adapter-faceid_sdxl", tmp_path)
    for number in range(30):
        (tmp_path / f"z{number:02}.bin").write_text(POINTER)
    with pytest.raises(AdapterNotFoundError, match=r"\(and 28 more\): z00\.bin is a Git LFS pointer") as caught:
        ModelFiles(lambda: [tmp_path], list).adapter("auto")
    assert len(caught.value.message) < 800


@pytest.mark.parametrize("name", ["README.md", "photo.png", "model"])
def test_a_file_that_is_named_and_is_no_model_is_not_called_a_pickle(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) if name == "photo.png" else b"# Words\n")
    with pytest.raises(CheckpointError, match=r"not a model file \(expected \.safetensors or a PyTorch file\)"):
        open_tensors(tmp_path / name)


def test_the_notes_of_macos_on_files_are_passed_over(tmp_path: Path) -> None:
    install("ip-adapter_sdxl", tmp_path)
    (tmp_path / "._ip-adapter_sdxl.safetensors").write_bytes(b"\0\5\x16\7" + bytes(60))
    files = ModelFiles(lambda: [tmp_path], list)
    assert (len(files.adapters.usable()), files.adapters.unusable()) == (1, [])


def test_a_message_names_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"to_k_ip": torch.zeros(1)}, str(path))

    def fail(*_: object, **__: object) -> None:
        raise OSError(f"cannot map {path}")

    monkeypatch.setattr("lib_instantstyle.files.tensor_files.safe_open", fail)
    with pytest.raises(CheckpointError, match=r"cannot map a\.safetensors") as caught:
        open_tensors(path)
    assert str(tmp_path) not in caught.value.message
