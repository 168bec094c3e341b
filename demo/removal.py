"""How much content each removal method takes out, and how much style it leaves: `python -m demo.removal`.

Measured on what an adapter reads, with probes that stand for the adapter: small attention poolers, trained once on
untouched features to name a picture's subject and its style, as an adapter is trained once on untouched features. What
a probe still names after the removal is what would still reach the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from lib_instantstyle.files.image_encoders import inspect_encoder
from lib_instantstyle.reference.content import Content, cosines, remove
from lib_instantstyle.reference.patches import PatchHead, read_patch_head, remove_from_patches

from .tried import STYLES, THINGS, elements, style_only, without_things
from .world.clip import pixel_values, trained_towers
from .world.dataset import pictures, scenes
from .world.drawing import SIDE
from .world.scenes import KINDS, PALETTES, SUBJECTS, TEXTURES, labels

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
UNRELATED = 3  # subjects that are not in the picture, as text unrelated to it
SUBJECT, STYLE = (0,), (3, 4)  # columns of labels
TOKENS = 4  # queries of a probe
THRESHOLD = 1.0  # standard deviations above a picture's mean at which a token is half content
SHARPNESS = 4.0  # per standard deviation
FLAT = 1e-4  # spread of cosines below which a picture's tokens do not differ


class Probe(nn.Module):
    """Learned queries over a picture's tokens, then a name for each kind: (n, tokens, width) → logits by column."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(TOKENS, width) / width**0.5)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(TOKENS * width, len(kind)) for kind in KINDS)

    def forward(self, features: Tensor) -> list[Tensor]:
        x = self.norm(features)
        pooled, _ = self.attention(self.queries.expand(len(x), -1, -1), x, x, need_weights=False)
        return [head(pooled.flatten(1)) for head in self.heads]


def train_probe(features: Tensor, truth: Tensor, steps: int, batch: int) -> Probe:
    torch.manual_seed(0)
    probe = Probe(features.shape[-1])
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        picked = torch.randint(0, len(features), (batch,))
        loss = sum(functional.cross_entropy(a, truth[picked, i]) for i, a in enumerate(probe(features[picked])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return probe.eval()


@dataclass(frozen=True)
class Point:
    """One method at one scale: shares of pictures whose subject and whose style the probe still names."""

    features: str  # pooled or patches
    method: str
    scale: float
    subject: float
    style: float


@dataclass(frozen=True, eq=False)
class Bench:
    """Test pictures as the encoder gives them, and the words for what they show."""

    truth: Tensor  # (n, 5)
    pooled: Tensor  # (n, projection)
    hidden: Tensor  # (n, tokens, width)
    grey: Tensor  # (1, tokens, width)
    text: dict[str, Tensor]  # subject → (1, projection)
    head: PatchHead
    things: Tensor  # (k, projection): texts that name subjects
    styles: Tensor  # (k, projection): texts that name styles


def measure(bench: Bench, pooled_probe: Probe, patch_probe: Probe) -> Iterator[Point]:
    for method in ("subtract", "project", "auto"):
        for scale in SCALES:
            after = _each(bench, lambda i, content, m=method, s=scale: remove(m, bench.pooled[i], content, s))
            yield _point("pooled", method, scale, pooled_probe(after[:, None]), bench.truth)
    for scale in SCALES:
        after = _each(bench, lambda i, content, s=scale: elements(bench.pooled[i], content.embeds, s))
        yield _point("pooled", "elements", scale, pooled_probe(after[:, None]), bench.truth)
    for name, way, texts in (("no things", without_things, bench.things), ("style only", style_only, bench.styles)):
        for scale in SCALES:
            after = way(bench.pooled, texts, scale)
            yield _point("pooled", name, scale, pooled_probe(after[:, None]), bench.truth)
    for scale in SCALES:
        after = _each(bench, lambda i, content, s=scale: fade(bench.hidden[i], content, s, bench.head, bench.grey))
        yield _point("patches", "fade", scale, patch_probe(after), bench.truth)
    for method in ("project", "auto"):
        for scale in SCALES:
            after = _each(
                bench, lambda i, c, m=method, s=scale: remove_from_patches(m, bench.hidden[i], c, s, bench.head)
            )
            yield _point("patches", f"pull ({method})", scale, patch_probe(after), bench.truth)


def fade(hidden: Tensor, content: Content, scale: float, head: PatchHead, grey: Tensor) -> Tensor:
    """h' = h + m(g − h): what the library did not become, with the mid-grey picture's tokens g (1, tokens, width)."""
    share = content_share(hidden, content, scale, head)
    return (hidden + share[..., None] * (grey - hidden)).to(hidden.dtype)


def content_share(hidden: Tensor, content: Content, scale: float, head: PatchHead) -> Tensor:
    """m (n, tokens): how far each token is faded, from 0 to 1. A map of where the content is.

    A token's sign of the content is its cosine with it, less its median cosine with what is unrelated, so that tokens
    which resemble everything do not count. In standard deviations z from the picture's mean: m = s·w·sigmoid(4(z − 1)),
    the largest over phrases, at most 1.
    """
    said = head.dense(hidden.float()).flatten(0, 1)  # (n·tokens, projection)
    signs = (cosines(said, content.embeds) - content.levels(said)).unflatten(0, hidden.shape[:2])
    deviation, mean = torch.std_mean(signs, dim=1, keepdim=True, correction=0)
    z = (signs - mean) / deviation.clamp_min(FLAT)
    present = content.weights * (content.embeds.norm(dim=1) > 0)
    return (scale * present * torch.sigmoid(SHARPNESS * (z - THRESHOLD))).amax(dim=-1).clamp(0.0, 1.0)


def _each(bench: Bench, removed) -> Tensor:
    """What is left of all pictures: each subject's pictures lose that subject."""
    after: dict[int, Tensor] = {}
    for number, subject in enumerate(SUBJECTS):
        rows = torch.nonzero(bench.truth[:, 0] == number)[:, 0]
        others = torch.cat([bench.text[other] for other in SUBJECTS if other != subject][:UNRELATED])
        content = Content(bench.text[subject], torch.ones(1), (others,))
        for row, left in zip(rows.tolist(), removed(rows, content)):
            after[row] = left
    return torch.stack([after[row] for row in range(len(bench.truth))])


@torch.no_grad()
def _point(features: str, method: str, scale: float, logits: list[Tensor], truth: Tensor) -> Point:
    named = torch.stack([logit.argmax(-1) for logit in logits], dim=1) == truth
    subject, style = (named[:, list(columns)].all(1).float().mean().item() for columns in (SUBJECT, STYLE))
    return Point(features, method, scale, subject, style)


@torch.no_grad()
def encoded(vision: nn.Module, pixels) -> tuple[Tensor, Tensor]:
    """Pooled embeddings (n, projection) and next-to-last hidden states (n, tokens, width)."""
    outputs = [vision(pixel_values(pixels[i : i + 100]), output_hidden_states=True) for i in range(0, len(pixels), 100)]
    return torch.cat([o.image_embeds for o in outputs]), torch.cat([o.hidden_states[-2] for o in outputs])


def open_bench(folder: Path, count: int, steps: int = 600, batch: int = 128) -> tuple[Bench, Probe, Probe]:
    """Draw pictures into the folder, encode them, train the probes on four times as many others."""
    clip, known, shown = trained_towers(), scenes(4 * count, 1), scenes(count, 2)
    pooled, hidden = encoded(clip.vision, pictures(folder, known, f"known-{count}"))
    truth = torch.tensor([labels(scene) for scene in known])
    probes = train_probe(pooled[:, None], truth, steps, batch), train_probe(hidden, truth, steps, batch)
    pooled, hidden = encoded(clip.vision, pictures(folder, shown, f"shown-{count}"))
    grey = encoded_grey(clip.vision)
    text = dict(zip(SUBJECTS, clip.text_embeds([f"a {subject}" for subject in SUBJECTS]).split(1)))
    head = read_patch_head(inspect_encoder(clip.save_encoder(folder / "encoder")))
    words = [clip.text_embeds(many) for many in (THINGS, STYLES)]
    return Bench(torch.tensor([labels(scene) for scene in shown]), pooled, hidden, grey, text, head, *words), *probes


@torch.no_grad()
def encoded_grey(vision: nn.Module) -> Tensor:
    """(1, tokens, width) hidden states of the mid-grey picture, which preprocessing maps to zero."""
    return vision(torch.zeros(1, 3, SIDE, SIDE), output_hidden_states=True).hidden_states[-2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.removal", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo/out/removal"), help="where pictures and numbers go")
    parser.add_argument("--count", type=int, default=600, help="test pictures")
    options = parser.parse_args(arguments)
    points = list(measure(*open_bench(options.out, options.count)))
    chance = 1 / len(SUBJECTS), 1 / (len(PALETTES) * len(TEXTURES))
    print(f"chance: subject {chance[0]:.2f}, style {chance[1]:.3f}")
    for point in points:
        print(f"{point.features:8} {point.method:16} {point.scale:4.2f}  {point.subject:5.2f}  {point.style:5.2f}")
    (options.out / "removal.json").write_text(json.dumps([vars(point) for point in points], indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
