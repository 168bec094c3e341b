"""Headers, indexes and configs that lie, and folders that hold traps: refused by name, and nothing else is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_instantstyle.files.adapters import Adapter, identify, inspect_adapter
from lib_instantstyle.files.clip_formats import MAX_LAYERS
from lib_instantstyle.files.image_encoders import inspect_encoder
from lib_instantstyle.files.installed import ModelFiles
from lib_instantstyle.files.projections import MAX_DEPTH
from lib_instantstyle.files.tensor_files import open_tensors, whole_of
from lib_instantstyle.files.text_towers import inspect_text_tower
from lib_instantstyle.units.errors import AdapterNotFoundError, CheckpointError

from ..published import write_sparse
from ..refusals import refusal
from ..tiny import SHARD_INDEX, base_adapter, plus_adapter, save_adapter, save_shards, sdxl_unet, vision_model
from ..tiny.clip import HIDDEN, POOLED

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def header_of(entries: dict[str, Any] | str, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"to_k_ip": {**ENTRY, **changes}}


LIES = {
    "empty": b"",
    "half a length": b"\x01\x00",
    "a length beyond the file": header_of(entry(), length=1 << 40),
    "a length beyond everything": header_of(entry(), length=(1 << 64) - 1),
    "a length of a hundred megabytes": header_of(entry(), length=100_000_000),
    "no JSON": header_of("{" * 50),
    "endless brackets": header_of("[" * 200_000),
    "a list": header_of("[]"),
    "offsets beyond the file": header_of(entry(data_offsets=[0, 1 << 50], shape=[1 << 48])),
    "offsets beyond everything": header_of(entry(data_offsets=[0, (1 << 64) - 1])),
    "negative offsets": header_of(entry(data_offsets=[-8, 0])),
    "offsets the wrong way round": header_of(entry(data_offsets=[8, 0])),
    "a shape of more than the offsets": header_of(entry(shape=[1_000_000])),
    "a shape that overflows": header_of(entry(shape=[1 << 33, 1 << 33])),
    "a negative shape": header_of(entry(shape=[-2])),
    "a shape of words": header_of(entry(shape=["two"])),
    "overlapping tensors": header_of({**entry(), "other": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12)),
    "tensors in one place": header_of({**entry(), "other": ENTRY}),
    "a gap": header_of({**entry(), "other": {**ENTRY, "data_offsets": [16, 24]}}, bytes(24)),
    "an unknown type": header_of(entry(dtype="F7")),
    "something after the end": header_of(entry(), bytes(100)),
}


@pytest.mark.parametrize("inspect", [inspect_adapter, inspect_encoder, inspect_text_tower])
@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_by_the_files_name(name: str, inspect: Any, tmp_path: Path) -> None:
    (tmp_path / "lie.safetensors").write_bytes(LIES[name])
    with pytest.raises(CheckpointError, match=r"lie\.safetensors") as caught:
        inspect(tmp_path / "lie.safetensors")
    assert len(caught.value.message) < 400


def test_a_name_given_twice_is_one_tensor_or_none(tmp_path: Path) -> None:
    """Readers may take the first or the last; what counts is that ours takes one and gives that one."""
    one, other = json.dumps(ENTRY), json.dumps({**ENTRY, "data_offsets": [8, 16]})
    data = torch.tensor([1.0, 1.0, 2.0, 2.0]).numpy().tobytes()
    (tmp_path / "twice.safetensors").write_bytes(header_of(f'{{"a": {one}, "a": {other}}}', data))
    refused = refusal(lambda: open_tensors(tmp_path / "twice.safetensors"))
    if refused is None:
        file = open_tensors(tmp_path / "twice.safetensors")
        assert file.shapes == {"a": (2,)}
        assert file.read("a").tolist() in ([1.0, 1.0], [2.0, 2.0])


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib_instantstyle.files.tensor_files.MAX_TENSORS", 1000)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    names = {f"to_k_ip.{number}": empty for number in range(1001)}
    (tmp_path / "many.safetensors").write_bytes(header_of(names, b""))
    with pytest.raises(CheckpointError, match="names 1001 tensors"):
        inspect_adapter(tmp_path / "many.safetensors")


ODD_NAMES = ["x" * 1_000_000, "a\nb\x1b[31m\x00", "<script>alert(1)</script>" * 20, "\u202egnp.exe"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(4))
def test_names_in_a_file_do_not_flood_or_forge_a_message(name: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(1)}, str(tmp_path / "odd.safetensors"))
    for inspect in (inspect_adapter, inspect_encoder, inspect_text_tower):
        with pytest.raises(CheckpointError) as caught:
            inspect(tmp_path / "odd.safetensors")
        assert len(caught.value.message) < 400
        assert caught.value.message.isprintable()


NO_ADAPTERS: dict[str, dict[str, tuple[int, ...]]] = {
    "a layer below the first": {"-1.to_k_ip.weight": (8, 32), "-1.to_v_ip.weight": (8, 32)},
    "layers without numbers": {"1.xto_k_ip.weight": (8, 32), "1.xto_v_ip.weight": (8, 32)},
    "a number of a thousand digits": {f"{'1' * 5000}.to_k_ip.weight": (8, 32)},
}


@pytest.mark.parametrize("name", NO_ADAPTERS)
def test_layers_that_no_unet_has_are_refused(name: str) -> None:
    layers = {f"ip_adapter.{key}": shape for key, shape in NO_ADAPTERS[name].items()}
    with pytest.raises(CheckpointError, match=r"odd\.safetensors"):
        identify(Path("odd.safetensors"), {"image_proj.proj.weight": (128, 48), **layers})


@pytest.mark.parametrize(
    "projection",
    [
        {"proj.weight": (0, 48)},
        {"proj.weight": (31, 48)},
        {"latents": (1, 0, 64), "proj_in.weight": (64, 128)},
    ],
)
def test_an_adapter_of_no_tokens_is_refused(projection: dict[str, tuple[int, ...]]) -> None:
    """It would add nothing, and the picture would pass for styled."""
    layers = {f"ip_adapter.1.to_{kind}_ip.weight": (8, 32) for kind in "kv"}
    shapes = {f"image_proj.{key}": shape for key, shape in projection.items()}
    with pytest.raises(CheckpointError, match=r"odd\.safetensors"):
        identify(Path("odd.safetensors"), {**shapes, **layers})


def test_a_tower_of_more_layers_than_any_has_is_not_built(tmp_path: Path) -> None:
    """A few kilobytes of names would have a hundred thousand layers made."""
    shapes: dict[str, tuple[int, ...]] = {name: tuple(t.shape) for name, t in vision_model().state_dict().items()}
    layers = {f"vision_model.encoder.layers.{number}.mlp.fc1.bias": (0,) for number in range(MAX_LAYERS + 1)}
    path = write_sparse(tmp_path / "tall.safetensors", {**layers, **shapes})
    with pytest.raises(CheckpointError, match=r"tall\.safetensors"):
        inspect_encoder(path)


def test_a_resampler_of_more_layers_than_any_has_is_not_built(tmp_path: Path) -> None:
    path = save_adapter(plus_adapter(sdxl_unet(), HIDDEN), tmp_path / "tall.safetensors")
    tensors = load_file(str(path))
    tensors |= {f"image_proj.layers.{number}.0.to_q.weight": torch.zeros(0) for number in range(4, MAX_DEPTH + 2)}
    save_file(tensors, str(path))
    with pytest.raises(CheckpointError, match=r"tall\.safetensors is incomplete: 66 layers"):
        Adapter(inspect_adapter(path)).projection()


OUTWARD = ["../{}", "{}", "../../../../{}", "sub/../../{}", "..\\{}"]


@pytest.mark.parametrize("way", OUTWARD)
def test_an_index_reads_nothing_outside_its_own_folder(way: str, tmp_path: Path) -> None:
    """Of a path only the last part counts; absolute ones are no exception."""
    inside = tmp_path / "models/encoder"
    inside.mkdir(parents=True)
    secret = tmp_path / "models/secret.safetensors"
    save_file(dict(vision_model().state_dict()), str(secret))
    target = str(secret) if way == "{}" else way.format("secret.safetensors")
    weight_map = dict.fromkeys(vision_model().state_dict(), target)
    (inside / SHARD_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="no longer exists"):
        inspect_encoder(inside / SHARD_INDEX)
    assert all(path.parent == inside for path in whole_of(inside / SHARD_INDEX))


INDEXES = {
    "itself": {"weight_map": {"a": SHARD_INDEX}},
    "the folder above": {"weight_map": {"a": ".."}},
    "nothing": {"weight_map": {"a": ""}},
    "a device": {"weight_map": {"a": "/dev/zero"}},
    "a number": {"weight_map": {"a": 1}},
    "a list": {"weight_map": [["a", "b"]]},
    "no map": {},
    "a thousand times itself": {"weight_map": {str(number): f"{number}.index.json" for number in range(1000)}},
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_leads_nowhere_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / SHARD_INDEX).write_text(json.dumps(INDEXES[name]))
    with pytest.raises(CheckpointError, match="safetensors"):
        open_tensors(tmp_path / SHARD_INDEX)
    assert whole_of(tmp_path / SHARD_INDEX)[0] == tmp_path / SHARD_INDEX


def test_a_shard_that_is_a_link_to_something_else_is_refused_without_a_word_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the secret of the house " * 100)
    (tmp_path / "model-1.safetensors").symlink_to(tmp_path / "secret")
    (tmp_path / SHARD_INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(CheckpointError) as caught:
        open_tensors(tmp_path / SHARD_INDEX)
    assert "house" not in caught.value.message


CONFIGS = {
    "endless brackets": "[" * 200_000,
    "words for numbers": json.dumps({"hidden_size": 128, "num_attention_heads": "two", "layer_norm_eps": "small"}),
    "lists": json.dumps({"hidden_size": 128, "hidden_act": ["gelu"]}),
    "a word": '"hidden_size"',
    "nothing": "",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_of_nonsense_beside_an_encoder_is_passed_over(name: str, tmp_path: Path) -> None:
    vision_model().save_pretrained(tmp_path, safe_serialization=True)
    (tmp_path / "config.json").unlink()
    plain = inspect_encoder(tmp_path / "model.safetensors").config
    (tmp_path / "config.json").write_text(CONFIGS[name])
    assert inspect_encoder(tmp_path / "model.safetensors").config == plain


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_models_folder_is_not_waited_for(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "adapters", tmp_path / "adapters")
    os.mkfifo(tmp_path / "adapters/pipe.safetensors")
    (tmp_path / "adapters/folder.safetensors").mkdir()
    (tmp_path / "adapters/lost.safetensors").symlink_to(tmp_path / "nowhere")
    files = ModelFiles(lambda: [tmp_path / "adapters"], list)
    assert [info.name for info in files.adapters.usable()] == ["base", "other", "plus"]
    assert files.adapters.unusable() == []


ADAPTER_NAMES = [
    "../adapters/base",
    "..\\adapters\\base",
    "./base",
    "/etc/passwd",
    "base\x00",
    "base\x00.safetensors",
    "\x00",
    "",
    " base",
    "BASE",
    "b\u0430se",  # a Cyrillic a
    "ｂａｓｅ",  # full width
    "ba\u0301se",
    "base\u202e",
    "x" * 2000,
    "*",
    "base*",
    "[b]ase",
    "%62ase",
    "CON",
    "file:///base",
]


@pytest.mark.parametrize("name", ADAPTER_NAMES)
def test_only_the_very_name_of_an_installed_adapter_finds_it(world: Path, name: str) -> None:
    files = ModelFiles(lambda: [world / "adapters"], list)
    assert files.adapter("base").name == "base"
    with pytest.raises(AdapterNotFoundError) as caught:
        files.adapter(name)
    assert (caught.value.field, caught.value.status_code) == ("adapter", 404)
    assert "Installed: base, other, plus" in caught.value.message


@pytest.mark.parametrize("save", [save_adapter, None])
def test_what_was_refused_is_not_kept_in_memory(save: Callable[..., Path] | None, tmp_path: Path) -> None:
    """A refusal is remembered as long as the file is there; what was read of the file must not be."""
    torch.save({"to_k_ip": torch.zeros(3), "more": bytearray(3)}, tmp_path / "evil.bin")
    files = ModelFiles(lambda: [tmp_path], list)
    (refused,) = files.adapters.unusable()
    assert refused.__traceback__ is None
    assert refused.__cause__ is refused.__context__ is None


def test_a_shard_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    """The index stays the same when a file that it names becomes another one."""
    index = save_shards(dict(vision_model().state_dict()), tmp_path)
    files = ModelFiles(list, lambda: [tmp_path])
    assert [info.path for info in files.encoders.usable()] == [index]
    shard = next(tmp_path.glob("*00002.safetensors"))
    tensors = load_file(str(shard))
    shard.unlink()
    assert files.encoders.usable() == []
    save_file(tensors, str(shard))
    assert [info.path for info in files.encoders.usable()] == [index]


def test_a_config_that_is_changed_is_noticed(tmp_path: Path) -> None:
    vision_model().save_pretrained(tmp_path, safe_serialization=True)
    files = ModelFiles(list, lambda: [tmp_path])
    (before,) = files.encoders.usable()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "quick_gelu"}))
    (after,) = files.encoders.usable()
    assert (before.config["hidden_act"], after.config["hidden_act"]) == ("gelu", "quick_gelu")


def test_an_adapter_of_the_tests_is_none_of_these(tmp_path: Path) -> None:
    assert inspect_adapter(save_adapter(base_adapter(sdxl_unet(), POOLED), tmp_path / "good.safetensors")).tokens == 4
