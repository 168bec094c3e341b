"""What a file is by its first bytes, whatever its name says; PyTorch's archives are looked at before anything in them
is unpickled.

`weights_only=True` is not enough by itself: before torch 2.6 TorchScript and tar archives went to readers of their own,
which it did not bind (CVE-2025-32434), and no version asks how much an archive unpacks to.
"""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Literal

from ..units.errors import CheckpointError

MAX_NAME_TABLE = 1 << 26  # bytes looked through for names; real tables are a few hundred kilobytes
HEAD = 512  # bytes that tell one kind of file from another
MAX_HEADER = 100_000_000  # bytes; safetensors' own limit
SHARD_INDEX_SUFFIX = ".index.json"

Container = Literal["index", "safetensors", "zip", "pickle", "other"]


def head_of(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD)


def container_of(path: Path) -> Container:
    """What kind of archive of tensors a file is, by its contents; only a shard index is known by its ending."""
    if path.name.lower().endswith(SHARD_INDEX_SUFFIX):
        return "index"
    head = head_of(path)
    if head.startswith(b"PK\x03\x04"):  # how torch itself tells a zipped file
        return "zip"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return "safetensors"
    if head.startswith(b"\x80") or tarfile.is_tarfile(path):  # a pickle of protocol 2 or later, or torch's of old
        return "pickle"
    return "other"


def stranger(path: Path) -> str | None:
    """What a file is that lies under a model's name and is plainly something else, with the way out; else None."""
    head, name = head_of(path), path.name
    if not head:
        return f"{name} is an empty file. Download it again."
    if head.startswith((b"version https://git-lfs", b"version https://hawser", b"# xet version")):
        return (
            f"{name} is a Git LFS pointer, not the model itself. Run `git lfs pull` in its folder, or download the "
            "file from its page."
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        return f"{name} is a web page, not the model itself. Use the download button on its page."
    if len(head) == HEAD and not any(head):
        return f"{name} begins with zeros only: its download did not finish. Download it again."
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"GGUF")):
        return (
            f"{name} is a GGUF file or a packed archive, not a model file. Use the .safetensors version of this file."
        )
    if _is_text(head) and not name.lower().endswith(SHARD_INDEX_SUFFIX):
        return f"{name} is a text file, not a model file (expected .safetensors or a PyTorch file). Download it again."
    return None


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\r\n\f" or 32 <= byte < 127 for byte in head)


def check_container(path: Path) -> None:
    """Raise CheckpointError for a file that torch.save has not written, or zipfile.BadZipFile for half of one."""
    if container_of(path) == "zip":
        _check_zip(path)
    elif tarfile.is_tarfile(path):
        raise CheckpointError(
            f"{path.name} is refused: it is a tar archive. Use the .safetensors version of this file."
        )
    if mentions(path, "bytearray"):  # the one thing weights_only lets a pickle make as large as it likes
        raise CheckpointError(
            f"{path.name} is refused: it is a pickle that holds more than tensors. Use the .safetensors version of "
            "this file."
        )


def _check_zip(path: Path) -> None:
    """torch.save packs nothing: every byte of its archives is stored once and as it is, the first one at the start."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.filename.endswith("constants.pkl") for entry in entries):
        raise CheckpointError(
            f"{path.name} is refused: it is a TorchScript archive, which holds a program. "
            "Use the .safetensors version of this file."
        )
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    padded = not entries or min(entry.header_offset for entry in entries)  # other readers may find other entries then
    if packed or padded or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(
            f"{path.name} is refused: it is a compressed or altered archive, which torch.save does not write. "
            "Download the file again from where it was published."
        )


def mentions(path: Path, word: str) -> bool:
    """Whether a file's table of names contains `word`; quick, reads no tensor and runs no pickle."""
    try:
        return word.encode() in _name_table(path)
    except Exception:  # the file cannot be read, so it is not of the kind
        return False


def _name_table(path: Path) -> bytes:
    kind = container_of(path)
    if kind == "zip" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            table = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            return archive.open(table).read(MAX_NAME_TABLE)
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little") if kind == "safetensors" else 1 << 20
        return head + file.read(min(length, MAX_NAME_TABLE))
