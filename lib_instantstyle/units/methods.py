"""Where a style can come from: each method with what it needs, and the fields that mean nothing with it."""

from __future__ import annotations

from dataclasses import dataclass

ADAPTER = "adapter"
LORA = "lora"
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
_OF_TOKENS = ("push_weight", "fusion", "kv_scaling")  # how a picture's tokens join the prompt's


@dataclass(frozen=True)
class Method:
    """One source of style."""

    name: str
    label: str
    told: str  # half a sentence for the schema
    source: str
    needs: str  # a field without which it is nothing
    lacks: tuple[str, ...]  # fields that mean nothing with it


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(ADAPTER, "Picture", "a picture, read by an IP-Adapter", "arXiv:2404.02733", "image", (LORA,)),
        Method(
            LORA,
            "LoRA",
            "a LoRA, limited to the preset's blocks",
            "B-LoRA, arXiv:2403.14572",
            "lora",
            ("image", *_OF_PICTURES, "adapter", *_OF_TOKENS, *_REMOVAL),
        ),
    )
}
