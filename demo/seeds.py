"""The world's prompts alone: `python -m demo.seeds` draws each subject from the first seeds, and has them judged.

Writes seeds.png, a sheet of the first seeds as they come, and seeds.json with the shares of pictures that show what was
asked for: the subject alone, and whole captions of combinations that training never showed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from .scores import Mean, mean
from .sheet import Row, Section, sheet
from .trials import Sampling
from .world import assembly
from .world.dataset import scenes
from .world.judge import trained_judge
from .world.scenes import SUBJECTS, Scene

SEEDS, HELD_OUT = 10, 100  # rows of the sheet; whole captions that are judged
BATCH = 10
KINDS = ("subject", "palette", "texture")

Drawn = list[Image.Image]


def draw(pipe: assembly.StableDiffusionXLPipeline, prompts: Sequence[str], seed: int) -> Drawn:
    """A picture for each prompt, seeds counting up."""
    noise, sampling = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))], Sampling()
    asked = {"num_inference_steps": sampling.steps, "guidance_scale": sampling.guidance, "generator": noise}
    return list(pipe(list(prompts), **asked).images)


def subjects(pipe: assembly.StableDiffusionXLPipeline) -> list[Drawn]:
    """By seed, a picture of each subject."""
    prompts = [f"a {subject}" for subject in SUBJECTS]
    return [draw(pipe, prompts, 1000 * seed) for seed in tqdm(range(SEEDS), desc="subjects")]


def held_out(pipe: assembly.StableDiffusionXLPipeline) -> tuple[list[Scene], Drawn]:
    """Combinations that training never showed, and their pictures by whole captions."""
    asked = scenes(HELD_OUT, 31, held_out=True)
    starts = tqdm(range(0, HELD_OUT, BATCH), desc="held out")
    made = [draw(pipe, [scene.caption() for scene in asked[at : at + BATCH]], 50_000 + at) for at in starts]
    return asked, [picture for part in made for picture in part]


def shares(by_seed: Sequence[Drawn], asked: Sequence[Scene], made: Drawn) -> dict[str, Mean]:
    """Shares of pictures that show what was asked for, with intervals over seeds and over captions."""
    judge = trained_judge()
    named = [[float(one.subject == name) for one, name in zip(judge.judge(row), SUBJECTS)] for row in by_seed]
    seen = judge.judge(made)
    told = {"subject alone": mean(named)}
    for kind in KINDS:
        right = [[float(getattr(one, kind) == getattr(scene, kind))] for one, scene in zip(seen, asked)]
        told[f"{kind}, held-out caption"] = mean(right)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.seeds", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("demo/out/seeds"), metavar="DIR")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    pipe = assembly.pipeline(compact=True)
    by_seed, (asked, made) = subjects(pipe), held_out(pipe)
    rows = [Row(f"seed {seed}", None, row) for seed, row in enumerate(by_seed)]
    sheet([Section("", [f"“a {subject}”" for subject in SUBJECTS], rows)]).save(out / "seeds.png")
    told = shares(by_seed, asked, made)
    (out / "seeds.json").write_text(json.dumps({name: vars(one) for name, one in told.items()}, indent=1), "utf-8")
    for name, one in told.items():
        print(f"{name:<28}{one}")


if __name__ == "__main__":
    main()
