"""Where a style can come from: each method with what it needs, and the fields that mean nothing with it."""

from __future__ import annotations

from dataclasses import dataclass

from .blocks import SDXL_BLOCKS

ADAPTER = "adapter"
SHARED = "shared"
SWAPPED = "swapped"
LORA = "lora"
PALETTE = "palette"
_REMOVAL = (
    "content_prompt",
    "content_scale",
    "content_method",
    "content_renorm",
    "content_image",
    "negative_image",
    "negative_noise",
)
_OF_PICTURES = ("crop", "combine", "image_weights", "mask", "image_mask")  # how the encoder and the layers see them
_OF_LAYERS = ("preset", "weight", "layout_weight", "blocks", "curve", "layout_curve")  # which see it, and how strongly
_OF_TOKENS = ("push_weight", "fusion", "kv_scaling", "attention_guidance")  # how a picture's tokens join the prompt's


@dataclass(frozen=True)
class Method:
    """One source of style."""

    name: str
    label: str
    told: str  # half a sentence for the schema
    source: str
    needs: str  # a field without which it is nothing; "" where there is none
    lacks: tuple[str, ...]  # fields that mean nothing with it
    blocks: tuple[str, ...] = ()  # that the preset style stands for, if not the style block


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            ADAPTER, "Picture", "a picture, read by an IP-Adapter", "arXiv:2404.02733", "image", (LORA, "leak_guard")
        ),
        Method(
            SHARED,
            "Picture, shared self-attention",
            "a picture that self-attention sees beside its own (StyleAligned), without any adapter; with no picture, "
            "the first one of each batch",
            "StyleAligned, arXiv:2312.02133",
            "",
            (LORA, *_OF_PICTURES, "adapter", "leak_guard", *_OF_TOKENS, *_REMOVAL),
            SDXL_BLOCKS,
        ),
        Method(
            SWAPPED,
            "Picture, swapped self-attention",
            "a picture that self-attention sees in the last blocks instead of its own (Visual Style Prompting), "
            "without any adapter",
            "Visual Style Prompting, arXiv:2402.12974",
            "image",
            (LORA, *_OF_PICTURES, "adapter", *_OF_TOKENS, *_REMOVAL),
            tuple(block for block in SDXL_BLOCKS if block.startswith("up_blocks.1.")),
        ),
        Method(
            LORA,
            "LoRA",
            "a LoRA, limited to the preset's blocks",
            "B-LoRA, arXiv:2403.14572",
            "lora",
            ("image", *_OF_PICTURES, "adapter", "leak_guard", *_OF_TOKENS, *_REMOVAL, PALETTE),
        ),
        Method(
            PALETTE,
            "Picture, only its colours",
            "the colours of a picture and nothing else, without any adapter; how strongly says palette",
            "Visual Style Prompting, arXiv:2402.12974",
            "image",
            (LORA, "crop", "combine", "adapter", "leak_guard", *_OF_TOKENS, *_REMOVAL, *_OF_LAYERS),
        ),
    )
}
