"""Trains the image encoder and both text towers on drawn pictures and their captions, in one joint space.

python -m demo.world.train_clip FOLDER [--steps N]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from . import models, words
from .clip import Towers, pack_towers, pixel_values, towers
from .dataset import pictures, scenes
from .descent import Descent, keep
from .progress import Curve
from .scenes import KINDS, Scene, labels

PARTS = ("subject", "layout", "palette", "texture")
LENGTH = 16  # tokens; captions are shorter


def matches(parts: list[frozenset[str]], shown: list[Scene]) -> Tensor:
    """(captions, pictures) 1 where everything caption i says is true of picture j."""
    known = torch.tensor([labels(scene) for scene in shown])  # (n, 5): subject, place, size, palette, texture
    same = known[:, None] == known[None]
    columns = {"subject": [0], "layout": [1, 2], "palette": [3], "texture": [4]}
    said = torch.tensor([[c in {x for part in one for x in columns[part]} for c in range(5)] for one in parts])
    return (same | ~said[:, None]).all(-1).float()


def random_parts(rng: np.random.Generator) -> frozenset[str]:
    """What a caption mentions: now and then one part alone, so that single words find their direction too."""
    if rng.random() < 0.4:
        return frozenset([str(rng.choice(["subject", "subject", "palette", "texture"]))])
    chosen = frozenset(part for part in PARTS if rng.random() < 0.75)
    if chosen == {"layout"} or not chosen:
        return frozenset(["subject"])
    return chosen if "subject" in chosen else chosen - {"layout"} or frozenset(["subject"])


class JointSpace(nn.Module):
    """The three towers while they learn.

    Thrown away afterwards: the smaller text tower's projection, and the heads that name what a picture shows, without
    which a tower this small finds the styles at once and the subjects very late.
    """

    def __init__(self) -> None:
        super().__init__()
        made = towers()
        self.vision, self.small, self.large = made.vision, made.small, made.large
        self.small_out = nn.Linear(models.CLIP_WIDTH, models.OPEN_CLIP_WIDTH, bias=False)
        self.heads = nn.ModuleList(nn.Linear(models.OPEN_CLIP_WIDTH, len(kind)) for kind in KINDS)
        self.temperature = nn.Parameter(torch.tensor(math.log(10.0)))

    def loss(self, pixels: Tensor, tokens: Tensor, match: Tensor, truth: Tensor) -> Tensor:
        embeds = self.vision(pixels).image_embeds
        image = functional.normalize(embeds, dim=-1)
        named = sum(functional.cross_entropy(head(embeds), truth[:, i]) for i, head in enumerate(self.heads))
        small = self.small_out(self.small(tokens).pooler_output)
        scale = self.temperature.exp().clamp(max=50)
        return named + sum(
            _agreement(scale * functional.normalize(text, dim=-1) @ image.T, match)
            for text in (self.large(tokens).text_embeds, small)
        )


def _agreement(logits: Tensor, match: Tensor) -> Tensor:
    """Cross entropy both ways, the probability shared evenly among all that match."""
    return sum(
        -(target / target.sum(-1, keepdim=True).clamp_min(1) * functional.log_softmax(way, dim=-1)).sum(-1).mean()
        for way, target in ((logits, match), (logits.T, match.T))
    )


def train(folder: Path, steps: int, batch: int = 64, rate: float = 8e-4) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shown = scenes(24000, 1)
    pixels = pictures(folder, shown, "train")
    model = JointSpace()
    descent = Descent(model, steps, rate, decay=0.01, beta=0.999)
    curve = Curve(folder / "clip.csv")
    for step in range(steps):
        picked = rng.choice(len(shown), batch, replace=False)
        drawn, parts = [shown[i] for i in picked], [random_parts(rng) for _ in picked]
        tokens = words.token_ids([scene.caption(said) for scene, said in zip(drawn, parts)], LENGTH)
        truth = torch.tensor([labels(scene) for scene in drawn])
        loss = model.loss(pixel_values(pixels[picked]), tokens, matches(parts, drawn), truth)
        curve.add(step, descent.step(loss))
        if step % 200 == 199:
            keep(model, folder / "clip.safetensors")
    keep(model, folder / "clip.safetensors")


def trained(folder: Path) -> Towers:
    """The towers that training left in the folder."""
    model = JointSpace()
    model.load_state_dict(load_file(folder / "clip.safetensors"))
    for tower in (model.small, model.large):
        _tie_positions(tower)
    return Towers(model.vision.eval(), model.small.eval(), model.large.eval())


@torch.no_grad()
def _tie_positions(tower: nn.Module) -> None:
    """Give the places behind every caption, which training never saw, one and the same embedding."""
    positions = next(module for name, module in tower.named_modules() if name.endswith("position_embedding"))
    positions.weight[LENGTH:] = positions.weight[LENGTH - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the world's CLIP and write the packed weights that ship.")
    parser.add_argument("folder", type=Path, help="where pictures, the curve and the state in between go")
    parser.add_argument("--steps", type=int, default=1600)
    options = parser.parse_args()
    train(options.folder, options.steps)
    pack_towers(trained(options.folder))


if __name__ == "__main__":
    main()
