"""Everything random depends on the seed and on what it is for, and on nothing else."""

from __future__ import annotations

import torch

from lib_instantstyle.standalone.training.draws import Draw, Split, shuffled
from lib_instantstyle.standalone.training.folder import index_of


def test_a_draw_is_the_same_whenever_and_wherever_it_is_made() -> None:
    first = Draw(3, 17).normal("noise", (4, 2, 2))
    torch.manual_seed(99)
    Draw(3, 18).normal("noise", (4, 2, 2))
    assert torch.equal(Draw(3, 17).normal("noise", (4, 2, 2)), first)


def test_draws_differ_by_seed_number_and_purpose() -> None:
    found = {Draw(seed, number).uniform(what) for seed in (0, 1) for number in (0, 1) for what in ("a", "b")}
    assert len(found) == 8


def test_noise_is_normal() -> None:
    noise = torch.stack([Draw(0, number).normal("noise", (1000,)) for number in range(20)])
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_torchs_own_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    Draw(0, 0).normal("noise", (4,))
    shuffled(5, 0)
    assert torch.equal(torch.rand(1), expected)


def test_however_a_step_is_split_it_has_the_same_samples_once() -> None:
    def numbers(batch: int, processes: int, passes: int) -> list[int]:
        splits = [Split(batch, process, processes, passes) for process in range(processes)]
        return sorted(n for split in splits for at in range(passes) for n in split.numbers(5, at))

    assert numbers(8, 1, 1) == numbers(4, 2, 1) == numbers(2, 2, 2) == numbers(2, 1, 4) == list(range(40, 48))


def test_every_epoch_shows_each_picture_once_in_another_order() -> None:
    epochs = [[index_of(number, 7, 0) for number in range(7 * epoch, 7 * epoch + 7)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
