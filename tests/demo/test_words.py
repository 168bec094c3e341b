"""The ranking of words, on a CLIP that was really trained: the first word is what the picture shows."""

from __future__ import annotations

import numpy as np
import torch

from demo.world import clip, dataset
from demo.world.drawing import draw
from demo.world.scenes import SUBJECTS
from lib_instantstyle.reference.vocabulary import best_words, vocabulary

SHOWN = 100


def test_every_subject_of_the_world_is_in_the_vocabulary() -> None:
    assert set(SUBJECTS) <= set(vocabulary())


def test_the_first_word_is_mostly_the_subject() -> None:
    towers, scenes = clip.trained_towers(), dataset.scenes(SHOWN, 11)
    with torch.no_grad():
        seen = towers.vision(clip.pixel_values(np.stack([np.asarray(draw(scene)) for scene in scenes]))).image_embeds
    said = towers.text_embeds(list(SUBJECTS))
    first = [SUBJECTS[best_words(one[None], said, 3)[0][0]] for one in seen]
    assert sum(word == scene.subject for word, scene in zip(first, scenes)) > 0.7 * SHOWN
