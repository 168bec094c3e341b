"""Adapter files as people have them: containers, damage, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from lib_instantstyle.files.adapters import Adapter, inspect_adapter
from lib_instantstyle.files.tensor_files import TensorFile
from lib_instantstyle.style.session import key_values
from lib_instantstyle.units.blocks import attention_layers
from lib_instantstyle.units.errors import CheckpointError, IncompatibleModelError, UnknownBlockError

from ..tiny import base_adapter, plus_adapter, save_adapter, sd15_unet, sdxl_unet
from ..tiny.clip import HIDDEN, PATCHES, POOLED

CONTAINERS = ["a.safetensors", "a.bin", "a.pth", "a.pt", "a.ckpt"]
STYLE, LAYOUT = "up_blocks.0.attentions.1", "down_blocks.2.attentions.1"


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return sdxl_unet()


class CountedFile:
    """A tensor file that remembers which names were read."""

    def __init__(self, file: TensorFile) -> None:
        self.shapes, self.reads, self._file = file.shapes, [], file

    def read(self, name: str) -> Tensor:
        self.reads.append(name)
        return self._file.read(name)


def test_every_container_holds_the_same_adapter(unet: nn.Module, tmp_path: Path) -> None:
    adapter = plus_adapter(unet, HIDDEN)
    for container in CONTAINERS:
        opened = Adapter(inspect_adapter(save_adapter(adapter, tmp_path / container)))
        assert (opened.info.variant, opened.info.tokens, opened.info.feature.width) == ("plus", 16, HIDDEN)
        for layer in attention_layers(unet):
            for kind, read in (("k", opened.to_k_ip), ("v", opened.to_v_ip)):
                assert torch.equal(read(layer), adapter["ip_adapter"][f"{2 * layer.index + 1}.to_{kind}_ip.weight"])
        projection = opened.projection().state_dict()
        assert projection.keys() == adapter["image_proj"].keys()
        assert all(torch.equal(projection[name], tensor) for name, tensor in adapter["image_proj"].items())


def test_legacy_pickle_without_zip_is_read(unet: nn.Module, tmp_path: Path) -> None:
    adapter = base_adapter(unet, POOLED)
    torch.save(adapter, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert inspect_adapter(tmp_path / "old.bin").variant == "base"


def test_half_precision_file_is_computed_in_float32(unet: nn.Module, tmp_path: Path) -> None:
    halved = {part: {k: t.half() for k, t in tensors.items()} for part, tensors in base_adapter(unet, POOLED).items()}
    opened = Adapter(inspect_adapter(save_adapter(halved, tmp_path / "a.safetensors")))
    assert {parameter.dtype for parameter in opened.projection().parameters()} == {torch.float32}
    assert opened.to_k_ip(next(iter(attention_layers(unet)))).dtype == torch.float32


@pytest.mark.parametrize("variant", ["base", "plus"])
def test_only_the_routed_layers_are_read(unet: nn.Module, variant: str, tmp_path: Path) -> None:
    pooled = variant == "base"
    made = base_adapter(unet, POOLED) if pooled else plus_adapter(unet, HIDDEN)
    adapter = Adapter(inspect_adapter(save_adapter(made, tmp_path / "a.safetensors")))
    adapter._file = counted = CountedFile(adapter._file)
    style = [layer for layer in attention_layers(unet) if layer.block == STYLE]
    cond = torch.randn(2, POOLED) if pooled else torch.randn(2, PATCHES, HIDDEN)
    found = key_values(adapter, cond, torch.ones(len(cond)), cond[:1], style)
    wanted = {f"ip_adapter.{2 * x.index + 1}.to_{kind}_ip.weight" for x in style for kind in "kv"}
    projection = [f"image_proj.{name}" for name in made["image_proj"]]
    assert sorted(counted.reads) == sorted([*projection, *wanted])
    assert found.keys() == {layer.index for layer in style}


@pytest.mark.parametrize("container", ["a.safetensors", "a.bin", "a.pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_truncated_file_is_refused_by_name(unet: nn.Module, container: str, share: float, tmp_path: Path) -> None:
    path = save_adapter(base_adapter(unet, POOLED), tmp_path / container)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=container):
        inspect_adapter(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_missing_file_is_refused_by_name(container: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=container):
        inspect_adapter(tmp_path / container)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_where_they_are_used(
    unet: nn.Module, bad: float, tmp_path: Path
) -> None:
    made = base_adapter(unet, POOLED)
    made["ip_adapter"]["1.to_k_ip.weight"][0, 0] = bad
    opened = Adapter(inspect_adapter(save_adapter(made, tmp_path / "a.safetensors")))
    first, second, *_ = attention_layers(unet)
    with pytest.raises(CheckpointError, match=r"ip_adapter\.1\.to_k_ip"):
        opened.to_k_ip(first)
    assert opened.to_k_ip(second).isfinite().all()
    assert opened.projection()


def test_projection_with_values_that_are_no_numbers_is_refused(unet: nn.Module, tmp_path: Path) -> None:
    made = base_adapter(unet, POOLED)
    made["image_proj"]["norm.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"norm\.bias"):
        Adapter(inspect_adapter(save_adapter(made, tmp_path / "a.safetensors"))).projection()


@pytest.mark.parametrize("lost", ["norm.bias", "proj.bias"])
def test_incomplete_base_projection_is_refused(unet: nn.Module, lost: str, tmp_path: Path) -> None:
    made = base_adapter(unet, POOLED)
    del made["image_proj"][lost]
    with pytest.raises(CheckpointError, match="incomplete"):
        Adapter(inspect_adapter(save_adapter(made, tmp_path / "a.safetensors"))).projection()


@pytest.mark.parametrize(
    "lost", ["layers.2.0.to_q.weight", "layers.0.1.1.weight", "norm_out.weight", "proj_out.weight"]
)
def test_incomplete_resampler_is_refused(unet: nn.Module, lost: str, tmp_path: Path) -> None:
    made = plus_adapter(unet, HIDDEN)
    del made["image_proj"][lost]
    with pytest.raises(CheckpointError, match="incomplete"):
        Adapter(inspect_adapter(save_adapter(made, tmp_path / "a.safetensors"))).projection()


def test_resampler_for_another_context_width_is_refused(unet: nn.Module, tmp_path: Path) -> None:
    made = plus_adapter(unet, HIDDEN)
    made["image_proj"] |= {"proj_out.weight": torch.ones(8, 64), "proj_out.bias": torch.ones(8)}
    made["image_proj"] |= {"norm_out.weight": torch.ones(8), "norm_out.bias": torch.ones(8)}
    with pytest.raises(CheckpointError, match=r"proj_out\.weight"):
        Adapter(inspect_adapter(save_adapter(made, tmp_path / "a.safetensors"))).projection()


def test_key_without_its_value_is_refused(unet: nn.Module, tmp_path: Path) -> None:
    made = base_adapter(unet, POOLED)
    del made["ip_adapter"]["3.to_v_ip.weight"]
    with pytest.raises(CheckpointError, match=r"layer 3 .*to_v_ip"):
        inspect_adapter(save_adapter(made, tmp_path / "a.safetensors"))


def test_file_of_something_else_is_no_ip_adapter(tmp_path: Path) -> None:
    path = save_adapter({"lora": {"up.weight": torch.ones(2, 2)}}, tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match=r"not an IP-Adapter.*lora\.up\.weight"):
        inspect_adapter(path)


def test_adapter_fits_the_unet_it_was_made_for(unet: nn.Module, tmp_path: Path) -> None:
    info = inspect_adapter(save_adapter(base_adapter(unet, POOLED), tmp_path / "a.safetensors"))
    info.check_fits(attention_layers(unet))


@pytest.mark.parametrize(("made_for", "message"), [((1, 3), "layer number"), ((2, 1), r"does not fit.*×")])
def test_adapter_for_another_depth_is_refused(
    unet: nn.Module, made_for: tuple[int, int], message: str, tmp_path: Path
) -> None:
    made = base_adapter(sdxl_unet(made_for), POOLED)
    info = inspect_adapter(save_adapter(made, tmp_path / "a.safetensors"))
    with pytest.raises(IncompatibleModelError, match=message) as caught:
        info.check_fits(attention_layers(unet))
    assert caught.value.field == "adapter"


def test_a_layer_of_packed_numbers_has_the_width_that_it_computes_with(unet: nn.Module, tmp_path: Path) -> None:
    """As bitsandbytes leaves it on a GPU: a column of bytes, each two numbers."""
    info, packed = inspect_adapter(save_adapter(base_adapter(unet, POOLED), tmp_path / "a.safetensors")), sdxl_unet()
    for attn2 in attention_layers(packed).values():
        weight, to_k = attn2.to_k.weight, attn2.to_k
        to_k.weight = nn.Parameter(torch.zeros(weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
        to_k.weight.quant_state = SimpleNamespace(shape=weight.shape)
    info.check_fits(attention_layers(packed))


def test_adapter_for_an_sd15_unet_does_not_fit(unet: nn.Module, tmp_path: Path) -> None:
    info = inspect_adapter(save_adapter(base_adapter(sd15_unet(), POOLED), tmp_path / "a.safetensors"))
    with pytest.raises(IncompatibleModelError):
        info.check_fits(attention_layers(unet))


def test_partial_adapter_fits_and_names_the_block_it_lacks(unet: nn.Module, tmp_path: Path) -> None:
    modules = attention_layers(unet)
    made = base_adapter(unet, POOLED)
    style = {str(2 * layer.index + 1) for layer in modules if layer.block == STYLE}
    made["ip_adapter"] = {key: t for key, t in made["ip_adapter"].items() if key.partition(".")[0] in style}
    info = inspect_adapter(save_adapter(made, tmp_path / "a.safetensors"))
    info.check_fits(modules)
    info.check_carries({layer: 1.0 for layer in modules if layer.block == STYLE})
    with pytest.raises(UnknownBlockError, match=LAYOUT.replace(".", r"\.")) as caught:
        info.check_carries({layer: 1.0 for layer in modules if layer.block in (STYLE, LAYOUT)})
    assert STYLE not in caught.value.message


def test_pickle_that_the_webuis_guard_answers_with_none_is_refused(
    unet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_adapter(base_adapter(unet, POOLED), tmp_path / "a.bin")
    monkeypatch.setattr(torch, "load", lambda *_, **__: None)
    with pytest.raises(CheckpointError, match="refused as unsafe"):
        inspect_adapter(path)
