"""The drawn world: what is drawn, what is held out, and that the trained CLIP knows what pictures show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from demo.world import clip, dataset, packing, words
from demo.world.drawing import MAT, SIDE, draw
from demo.world.scenes import KINDS, PALETTES, PLACES, SIZES, SUBJECTS, TEXTURES, Scene, labels

SCENE = Scene("house", "left", "small", "sunset", "flat", seed=3)
PICTURES = 200


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(draw(scene)).astype(int)


def test_a_scene_always_gives_the_same_picture() -> None:
    assert np.array_equal(pixels(SCENE), pixels(SCENE))


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "tree"},
        {"place": "right"},
        {"size": "large"},
        {"palette": "ice"},
        {"texture": "mosaic"},
        {"seed": 4},
    ],
)
def test_every_part_of_a_scene_shows(other: dict[str, str]) -> None:
    assert not np.array_equal(pixels(SCENE), pixels(replace(SCENE, **other)))


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_drawn_in_every_texture_inside_its_mat(subject: str, texture: str) -> None:
    drawn = pixels(replace(SCENE, subject=subject, texture=texture))
    assert drawn.shape == (SIDE, SIDE, 3)
    assert (drawn[:MAT] == 255).all()
    assert drawn[MAT:-MAT, MAT:-MAT].std() > 5


def test_place_decides_where_the_subject_is() -> None:
    def middle(place: str) -> float:
        drawn = pixels(replace(SCENE, place=place, texture="flat", subject="tree", palette="ice"))
        sky = drawn[MAT + 2, MAT + 2]
        differing = np.abs(drawn[MAT : SIDE // 2, MAT:-MAT] - sky).sum(-1) > 60
        return float(np.nonzero(differing)[1].mean())

    assert middle("left") + 10 < middle("centre") < middle("right") - 10


def test_captions_say_the_parts_that_are_asked_for() -> None:
    assert SCENE.caption() == "a small house on the left, sunset colors, flat"
    assert SCENE.caption(frozenset({"subject"})) == "a house"
    assert SCENE.caption(frozenset({"palette", "texture"})) == "sunset colors, flat"


def test_training_never_shows_what_is_held_out() -> None:
    known, other = dataset.scenes(500, 1), dataset.scenes(500, 2, held_out=True)
    seen = {(scene.subject, *scene.style) for scene in known}
    assert not seen & {(scene.subject, *scene.style) for scene in other}
    combinations = [Scene(s, "left", "small", p, t) for s in SUBJECTS for p in PALETTES for t in TEXTURES]
    assert 0.1 < sum(scene.held_out for scene in combinations) / len(combinations) < 0.2


def test_labels_name_the_parts_in_order() -> None:
    chosen = ("tree", PLACES[1], SIZES[1], "ice", "outline")
    assert [kind[number] for kind, number in zip(KINDS, labels(Scene(*chosen)))] == list(chosen)


def test_every_caption_can_be_tokenized() -> None:
    rows = words.token_ids([scene.caption() for scene in dataset.scenes(300, 5)])
    assert rows.max() == len(words.known_tokens()) - 1  # the end of text
    assert (rows[:, 0] == len(words.known_tokens()) - 2).all()


def test_packed_matrices_come_back_within_half_a_step(tmp_path: Path) -> None:
    state = {"wide": torch.randn(70, 90), "small": torch.randn(3, 4), "bias": torch.randn(5)}
    packing.write({"net": state}, tmp_path / "packed.safetensors")
    found = packing.read(tmp_path / "packed.safetensors")["net"]
    step = state["wide"].abs().amax(1, keepdim=True) / 127
    assert ((found["wide"] - state["wide"]).abs() <= 0.501 * step).all()
    for name in ("small", "bias"):
        torch.testing.assert_close(found[name], state[name], rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def shown() -> list[Scene]:
    return dataset.scenes(PICTURES, 2)


@pytest.mark.parametrize(
    ("column", "phrase", "least"), [(0, "a {}", 0.75), (3, "{} colors", 0.95), (4, "{}", 0.95)], ids=lambda x: str(x)
)
def test_the_trained_clip_names_what_unseen_pictures_show(
    shown: list[Scene], column: int, phrase: str, least: float
) -> None:
    towers = clip.trained_towers()
    with torch.no_grad():
        seen = towers.vision(clip.pixel_values(np.stack([np.asarray(draw(scene)) for scene in shown]))).image_embeds
    said = towers.text_embeds([phrase.format(name) for name in KINDS[column]])
    best = (functional.normalize(seen, dim=-1) @ functional.normalize(said, dim=-1).T).argmax(-1)
    truth = torch.tensor([labels(scene)[column] for scene in shown])
    assert (best == truth).float().mean() > least
