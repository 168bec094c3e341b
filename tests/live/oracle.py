"""Styled sampling by the book: decoupled cross-attention written out in place of the routed `attn2`.

    out = to_out( H  +  Σ_units scale · factor · m · S ),   H = softmax(q Kᵀ/√d) V,   S = softmax(q K_ipᵀ/√d) V_ip

where m is the unit's region, and AdaIN(H, S) − H stands for S where it is asked for. With attention guidance φ the sum
Z of one unit becomes Z + (Z̃ − Z)/2, with Z̃ = Z + φ (Z − Z⁻) no longer than 2.5 Z, and Z⁻ for unconditional rows' S.

Which rows of a batch are conditional is not found out but told by the test, call by call; so is where a unit acts. With
the extension off, a job inside `styling(…)` ends in the latents that the extension must reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Any
from unittest import mock

import torch
from live_kind import called_for_a_prediction, kind
from live_world import World
from oracle_forks import Now, fork_calls
from oracle_prompts import Content, attention, image_prompts, load
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

# The WebUI's name of each block, and the numbers that its layers have in an adapter file.
STYLE, LAYOUT = "output_blocks.1.1", "input_blocks.8.1"
NUMBERS = {
    "input_blocks.4.1": range(1, 5, 2),
    "input_blocks.5.1": range(5, 9, 2),
    "input_blocks.7.1": range(9, 29, 2),
    LAYOUT: range(29, 49, 2),
    "output_blocks.0.1": range(49, 69, 2),
    STYLE: range(69, 89, 2),
    "output_blocks.2.1": range(89, 109, 2),
    "output_blocks.3.1": range(109, 113, 2),
    "output_blocks.4.1": range(113, 117, 2),
    "output_blocks.5.1": range(117, 121, 2),
    "middle_block.1": range(121, 141, 2),
}
SHALLOW = ("input_blocks.4.", "input_blocks.5.", "output_blocks.3.", "output_blocks.4.", "output_blocks.5.")


@dataclass(frozen=True)
class Styling:
    """One unit as the formula sees it."""

    pictures: tuple[Image.Image, ...]
    scales: Mapping[str, float]  # a block or one of its transformer blocks, in the WebUI's names → scale
    adapter: str = "tiny-base"
    content: Content | None = None
    negative: Image.Image | None = None  # seen by the unconditional rows
    steps: tuple[range, ...] | None = None  # for each pass, the model calls in which it acts, from 0; all when None
    factors: tuple[tuple[float, ...], ...] = ()  # on the scale: for each pass, and each model call in it
    region: Tensor | None = None  # (1, 1, height, width), laid over the picture; everywhere when None
    adain: bool = False
    guidance: float = 0.0


@dataclass
class Layer:
    """Keys and values of one unit in one attn2, each (tokens, width): for unconditional and for conditional rows."""

    keys: tuple[Tensor, Tensor]
    values: tuple[Tensor, Tensor]
    scale: float
    halvings: int  # of the latent, before this layer
    unit: Styling

    def acts(self, now: Now) -> bool:
        return self.unit.steps is None or now.step in self.unit.steps[now.number]

    def term(self, first: Tensor, query: Tensor, now: Now, heads: int) -> Tensor:
        """What is added to `first`, the attention to the text: all (rows, places, width)."""
        added = self._term(first, query, now, heads)
        if not self.unit.guidance:
            return added
        here, there = first + added, first + self._term(first, query, replace(now, rows="u" * len(now.rows)), heads)
        led = here + self.unit.guidance * (here - there)
        longer = led.abs().sum(-1, keepdim=True) / (2.5 * here.abs().sum(-1, keepdim=True))
        return added + (led / longer.clamp(min=1) - here) / 2

    def _term(self, first: Tensor, query: Tensor, now: Now, heads: int) -> Tensor:
        second = self._attend(query, now.rows, heads)
        if self.unit.adain:
            flat = (first - first.mean(1, keepdim=True)) / (first.std(1, keepdim=True) + 1e-5)
            second = flat * second.std(1, keepdim=True) + second.mean(1, keepdim=True) - first
        if self.unit.region is not None:
            second = second * self._shares(now.size).to(second)
        return self.scale * (self.unit.factors[now.number][now.step] if self.unit.factors else 1) * second

    def _shares(self, size: Sequence[int]) -> Tensor:
        """The region's mean over the area of each place: (1, places, 1)."""
        height, width = size
        for _ in range(self.halvings):
            height, width = (height + 1) // 2, (width + 1) // 2
        return adaptive_avg_pool2d(self.unit.region, (height, width)).reshape(1, -1, 1)

    def _attend(self, query: Tensor, rows: str, heads: int) -> Tensor:
        """In float32, whatever the WebUI computes with."""
        is_cond = [row == "c" for row in rows]
        key = torch.stack([self.keys[row] for row in is_cond]).to(query.device)
        value = torch.stack([self.values[row] for row in is_cond]).to(query.device)
        with torch.autocast(query.device.type, enabled=False):
            return attention(query.float(), key, value, heads).to(query.dtype)


@dataclass
class Oracle:
    """Counts passes and calls of the UNet. `rows` tells each step's calls: "cu" is one call with a conditional and an
    unconditional row, "cc uu" is two calls of two rows. When there are more steps, it starts over. Where passes differ,
    there are such rows for each of them.

    With `keep_first_term` the first term is what the module makes by itself, under whatever another extension has put
    into it: to_out is linear, so to_out(first + second) = to_out(first) + to_out(second) − to_out(0)."""

    rows: Sequence[str] | Sequence[Sequence[str]]
    keep_first_term: bool = False
    layers: dict[str, list[Layer]] = field(default_factory=dict)
    pass_number: int = -1
    calls: Iterator[tuple[int, str]] | None = None  # those to come in this pass: step and rows

    def begin_pass(self) -> None:
        self.pass_number += 1
        rows = self.rows if isinstance(self.rows[0], str) else self.rows[self.pass_number]
        self.calls = ((step, call) for step, calls in enumerate(cycle(rows)) for call in calls.split())

    @contextmanager
    def call(self, unet: nn.Module, x: Tensor) -> Iterator[None]:
        """One call of the UNet, styled while it lasts."""
        step, rows = next(self.calls)
        assert len(rows) == len(x), f"step {step} was said to have the rows {rows!r}, but has {len(x)}"
        with self.styled(unet, Now(self.pass_number, step, rows, x.shape[-2:])):
            yield

    @contextmanager
    def styled(self, unet: nn.Module, now: Now) -> Iterator[None]:
        """The routed modules' forward is replaced."""
        with ExitStack() as stack:
            for path, layers in self.layers.items():
                acting = [layer for layer in layers if layer.acts(now)]
                if not acting:
                    continue
                module = unet.get_submodule(path)
                by_the_book = (_added if self.keep_first_term else _textbook)(module, acting, now)
                stack.enter_context(mock.patch.object(module, "forward", by_the_book))
            yield


def _textbook(attn2: Any, layers: Sequence[Layer], now: Now) -> Any:
    def forward(x: Tensor, context: Tensor, mask: None = None, **_: Any) -> Tensor:
        query, key, value = attn2.to_q(x), attn2.to_k(context), attn2.to_v(context)
        out = first = attention(query, key, value, attn2.heads)
        for layer in layers:
            out = out + layer.term(first, query, now, attn2.heads)
        return attn2.to_out(out)

    return forward


def _added(attn2: Any, layers: Sequence[Layer], now: Now) -> Any:
    own, to_out = attn2.forward, attn2.to_out

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        query, out = attn2.to_q(x), own(x, *args, **kwargs)
        for layer in layers:
            second = layer.term(torch.zeros_like(query), query, now, attn2.heads)
            out = out + to_out(second) - to_out(torch.zeros_like(second))
        return out

    return forward


@contextmanager
def styling(
    world: World,
    units: Sequence[Styling],
    rows: Sequence[str] | Sequence[Sequence[str]],
    *,
    keep_first_term: bool = False,
) -> Iterator[None]:
    """Every job inside is styled by the formula. (In a fork the rows are found out: oracle_forks.py.)"""
    from modules.sd_samplers_common import Sampler

    oracle = Oracle(rows, keep_first_term)
    for unit in units:
        for path, layer in _layers(world, unit):
            oracle.layers.setdefault(path, []).append(layer)
    sample = Sampler.launch_sampling

    def sample_anew(self: Any, *args: Any) -> Tensor:
        oracle.begin_pass()
        return sample(self, *args)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Sampler, "launch_sampling", sample_anew))
        stack.enter_context(fork_calls(oracle) if kind().is_fork else _calls(oracle))
        yield


@contextmanager
def _calls(oracle: Oracle) -> Iterator[None]:
    called = called_for_a_prediction()
    call = called.forward

    def call_styled(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with oracle.call(self.diffusion_model, x):
            return call(self, x, *args, **kwargs)

    with mock.patch.object(called, "forward", call_styled):
        yield


def _layers(world: World, unit: Styling) -> Iterator[tuple[str, Layer]]:
    adapter = load(world.adapter(unit.adapter))
    uncond, cond = image_prompts(world, adapter, unit.pictures, unit.content, unit.negative)
    for path, key, scale in _routed(unit.scales):
        to_k, to_v = (adapter[f"ip_adapter.{key}.{name}.weight"].T for name in ("to_k_ip", "to_v_ip"))
        halvings = 1 if path.startswith(SHALLOW) else 2
        yield path, Layer((uncond @ to_k, cond @ to_k), (uncond @ to_v, cond @ to_v), scale, halvings, unit)


def _routed(scales: Mapping[str, float]) -> Iterator[tuple[str, int, float]]:
    """(path of the attn2, its number in an adapter file, scale) of every layer that `scales` names."""
    for block, numbers in NUMBERS.items():
        for depth, number in enumerate(numbers):
            path = f"{block}.transformer_blocks.{depth}"
            for named in {block, path} & set(scales):
                yield f"{path}.attn2", number, scales[named]
