"""Hostile files in the models folder: refused by name, never run, never the cause of another kind of error."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_instantstyle.files.adapters import identify, inspect_adapter
from lib_instantstyle.files.containers import mentions
from lib_instantstyle.files.image_encoders import inspect_encoder
from lib_instantstyle.files.text_towers import TextTower, inspect_text_tower
from lib_instantstyle.units.errors import CheckpointError

from ..published import write_sparse
from ..refusals import refusal
from ..tiny import base_adapter, open_clip_tensors, save_adapter, sdxl_unet, vision_model
from ..tiny.clip import POOLED


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("inspect", [inspect_adapter, inspect_encoder, inspect_text_tower])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".bin", ".pth", ".pt", ".ckpt"])
def test_malicious_pickle_is_refused_and_not_run(inspect: Any, zipped: bool, suffix: str, tmp_path: Path) -> None:
    adapter, encoder = base_adapter(sdxl_unet(), POOLED), open_clip_tensors(vision_model())
    path = tmp_path / f"evil{suffix}"
    evil = {**adapter, **encoder, "to_k_ip": Malicious(tmp_path / "pwned")}
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="evil"):
        inspect(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", range(5))
def test_bare_malicious_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Malicious(tmp_path / "pwned"), protocol))
    with pytest.raises(CheckpointError, match="evil"):
        inspect_adapter(tmp_path / "evil.bin")
    assert not (tmp_path / "pwned").exists()


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, adapter = tmp_path_factory.mktemp("whole"), base_adapter(sdxl_unet(), POOLED)
    names = ["a.safetensors", "a.bin", "a.pth"]
    return {name: save_adapter(adapter, folder / name).read_bytes() for name in names}


@given(st.data())
def test_file_with_changed_bytes_is_read_or_refused(
    whole_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(whole_files)))
    changed = bytearray(whole_files[name])
    reach = data.draw(st.sampled_from([64, 2000, len(changed)]))
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, min(reach, len(changed)) - 1))] = data.draw(st.integers(0, 255))
    inspect_both(tmp_path_factory.getbasetemp() / name, bytes(changed))


@given(st.binary(max_size=300), st.sampled_from([".safetensors", ".bin", ".index.json"]), st.booleans())
def test_file_of_random_bytes_is_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, zipped: bool
) -> None:
    if zipped:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", b"3\n")
        content = buffer.getvalue()
    inspect_both(tmp_path_factory.getbasetemp() / f"random{suffix}", content)


def inspect_both(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for inspect in (inspect_adapter, inspect_encoder, inspect_text_tower):
        refused = refusal(lambda inspect=inspect: inspect(path))
        assert refused is None or path.name in refused.message
    assert mentions(path, "to_k_ip") in (True, False)


ADAPTER_KEYS = [
    "image_proj.proj.weight",
    "image_proj.norm.weight",
    "image_proj.latents",
    "image_proj.proj_in.weight",
    "ip_adapter.1.to_k_ip.weight",
    "ip_adapter.1.to_v_ip.weight",
    "ip_adapter.x.to_k_ip.weight",
    "ip_adapter.down.0.to_k_ip.weight",
    "ip_adapter.².to_k_ip.weight",
    "ip_adapter.².to_v_ip.weight",
]
ENCODER_KEYS = [
    "vision_model.embeddings.class_embedding",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.embeddings.position_embedding.weight",
    "vision_model.encoder.layers.0.mlp.fc1.weight",
    "visual_projection.weight",
    "visual.class_embedding",
    "visual.conv1.weight",
    "visual.positional_embedding",
    "visual.transformer.resblocks.0.mlp.c_fc.weight",
    "visual.ln_post.weight",
    "visual.proj",
]
TEXT_KEYS = [
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    "text_model.encoder.layers.0.mlp.fc1.weight",
    "text_projection.weight",
    "token_embedding.weight",
    "positional_embedding",
    "transformer.resblocks.0.mlp.c_fc.weight",
    "ln_final.weight",
    "text_projection",
    "visual.class_embedding",
    "((.token_embedding.weight",
    "((.ln_final.weight",
]
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(st.dictionaries(st.sampled_from(ADAPTER_KEYS), SHAPES, min_size=1))
def test_adapter_of_any_shapes_is_known_or_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    refused = refusal(lambda: identify(Path("odd.safetensors"), shapes))
    if refused:
        assert "odd.safetensors" in refused.message
    else:
        assert identify(Path("odd.safetensors"), shapes).layer_widths == {0: shapes["ip_adapter.1.to_k_ip.weight"][0]}


@given(st.dictionaries(st.sampled_from(ENCODER_KEYS), SHAPES, min_size=1))
def test_encoder_of_any_shapes_is_known_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, ...]]
) -> None:
    path = write_sparse(tmp_path_factory.getbasetemp() / "odd.safetensors", shapes)
    refused = refusal(lambda: inspect_encoder(path))
    assert refused is None or "odd.safetensors" in refused.message


@given(st.dictionaries(st.sampled_from(TEXT_KEYS), SHAPES, min_size=1))
def test_text_tower_of_any_shapes_is_known_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[int, ...]]
) -> None:
    path = write_sparse(tmp_path_factory.getbasetemp() / "odd.safetensors", shapes)
    refused = refusal(lambda: inspect_text_tower(path))
    assert refused is None or "odd.safetensors" in refused.message
    if refused is None:  # a table of names may pass; what cannot be a tower is refused when it is loaded
        load = refusal(lambda: TextTower(inspect_text_tower(path), lambda _: [], torch.device("cpu"), torch.float32))
        assert load is None or "odd.safetensors" in load.message
