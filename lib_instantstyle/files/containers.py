"""The archives that PyTorch files come in, looked at before anything in them is unpickled.

`weights_only=True` is not enough by itself: before torch 2.6 TorchScript and tar archives went to readers of their own,
which it did not bind (CVE-2025-32434), and no version asks how much an archive unpacks to.
"""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from ..units.errors import CheckpointError

MAX_NAME_TABLE = 1 << 26  # bytes looked through for names; real tables are a few hundred kilobytes
_ZIP = b"PK\x03\x04"  # how torch itself tells a zipped file


def is_zipped(path: Path) -> bool:
    """Whether torch takes the file for a zip archive."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def check_container(path: Path) -> None:
    """Raise CheckpointError for a file that torch.save has not written, or zipfile.BadZipFile for half of one."""
    if is_zipped(path):
        _check_zip(path)
    elif tarfile.is_tarfile(path):
        raise CheckpointError(
            f"{path.name} is refused: it is a tar archive. Use the .safetensors version of this file."
        )
    if mentions(path, "bytearray"):  # the one thing weights_only lets a pickle make as large as it likes
        raise CheckpointError(
            f"{path.name} is refused: it is a pickle that holds more than tensors. Use the .safetensors version of it."
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
            f"{path.name} is refused: it is a compressed or altered archive, none that torch.save has made. "
            "Download the file again from where it was published."
        )


def mentions(path: Path, word: str) -> bool:
    """Whether a file's table of names contains `word`; quick, reads no tensor and runs no pickle."""
    try:
        return word.encode() in _name_table(path)
    except Exception:  # no file that could be read, so none of the kind
        return False


def _name_table(path: Path) -> bytes:
    if path.suffix != ".safetensors" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            table = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            return archive.open(table).read(MAX_NAME_TABLE)
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little") if path.suffix == ".safetensors" else 1 << 20
        return head + file.read(min(length, MAX_NAME_TABLE))
