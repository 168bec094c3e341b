"""What an IP-Adapter's tensors are called, in every way of writing seen in files.

    image projection   image_proj.proj.weight                   or under image_proj_model.
    layers             ip_adapter.69.to_k_ip.weight             or under adapter_modules.
                       up_blocks.0.attentions.1.transformer_blocks.0.attn2.processor.to_k_ip.weight    (diffusers' UNet)
                       output_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight                     (ldm's)

Dictionaries around them (`state_dict.`, `ip_adapter.` before the UNet's names) and wrappers (`module.`) count for
nothing. Where one tensor is written in several ways, as in a training's whole dump, the first of the list is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from ..units.blocks import SD15_BLOCKS, SDXL_BLOCKS, SDXL_DEPTHS, diffusers_name, number_layers
from ..units.errors import CheckpointError
from ..units.fields import shown

Shapes = Mapping[str, tuple[int, ...]]
Names = dict[str, str]  # short name → key in the file
Read = tuple[int, str, str]  # which way of writing, the dictionaries around it, the short name

_PROJECTION = re.compile(r"^(?P<around>(?:.*\.)?)(?P<group>image_proj|image_proj_model)\.(?P<rest>.+)$")
_NUMBERED = re.compile(r"^(?P<around>(?:.*\.)?)(?P<group>ip_adapter|adapter_modules)\.(?P<rest>.+)$")
_IN_UNET = re.compile(
    r"^(?P<around>(?:.*\.)?)(?P<block>(?:down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)[.\w]*?)"
    r"\.transformer_blocks\.(?P<depth>\d{1,4})\.attn(?P<which>[12])\.(?:processor\.)?"
    r"(?P<rest>to_[kv]_ip(?:\.0)?\.weight|to_\w+_lora\..+)$"
)
LONGEST = 300  # letters of a name worth matching
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)\.)+")


def projection_names(file: str, shapes: Shapes) -> Names:
    """The image projection's parameters. Raises CheckpointError, naming the file, when it holds several."""
    return _plainest(file, shapes, _grouped(_PROJECTION, ("image_proj", "image_proj_model")))


def layer_names(file: str, shapes: Shapes) -> Names:
    """The layers' parameters as "{2n+1}.to_k_ip.weight" of layer n.

    Raises CheckpointError, naming the file, when it holds several adapters, and KeyError for layers of another UNet.
    """
    numbers = _numbers_in_unet(shapes)
    numbered = _grouped(_NUMBERED, ("ip_adapter", "adapter_modules"))

    def read(key: str) -> Read | None:
        if found := _IN_UNET.match(key):
            at = numbers[diffusers_name(found["block"]), int(found["depth"])]
            return 2, found["around"], f"{2 * at + int(found['which']) - 1}.{_single(found['rest'])}"
        return numbered(key)

    return _plainest(file, shapes, read)


def _grouped(pattern: re.Pattern[str], groups: tuple[str, ...]) -> Callable[[str], Read | None]:
    def read(key: str) -> Read | None:
        found = pattern.match(key)
        if not found:
            return None
        return groups.index(found["group"]), found["around"], _single(_WRAPPERS.sub("", found["rest"]))

    return read


def _single(rest: str) -> str:
    """diffusers keeps a list of adapters in each processor; of a file with one, the 0 in the name says nothing."""
    return re.sub(r"(to_[kv]_ip)\.0\.weight$", r"\1.weight", rest)


def _plainest(file: str, shapes: Shapes, read: Callable[[str], Read | None]) -> Names:
    """The tensors in the first way of writing there is, inside the fewest dictionaries."""
    written: dict[tuple[int, int, str], Names] = {}
    for key in shapes:
        if len(key) <= LONGEST and (found := read(key)):
            way, around, short = found
            written.setdefault((way, around.count("."), around), {})[short] = key
    if not written:
        return {}
    first, *others = sorted(written)
    if any(other[:2] == first[:2] for other in others):
        raise CheckpointError(
            f"{file} holds several adapters, under {shown(first[2])} and {shown(others[0][2])}. "
            "Save the one to use in a file of its own."
        )
    return written[first]


def _numbers_in_unet(shapes: Shapes) -> dict[tuple[str, int], int]:
    """The numbers of a UNet's layers by block and depth, where a file calls them so.

    One with every block tells the depths itself; one with some blocks is numbered like the real UNet.
    """
    found = set(_unet_layers(shapes))
    named = {block for block, _ in found}
    blocks, depths = (SDXL_BLOCKS, SDXL_DEPTHS) if named <= {*SDXL_BLOCKS} else (SD15_BLOCKS, (1,) * len(SD15_BLOCKS))
    if named == set(blocks):
        depths = tuple(sum(block == name for block, _ in found) for name in blocks)
    return {(layer.block, layer.depth): layer.index for layer in number_layers(blocks, depths)}


def _unet_layers(shapes: Shapes) -> Iterator[tuple[str, int]]:
    for found in filter(None, map(_IN_UNET.match, (key for key in shapes if len(key) <= LONGEST))):
        yield diffusers_name(found["block"]), int(found["depth"])
