"""Taking content out of an embedding: the official arithmetic, what projection means, and where auto stops."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch
from torch import Tensor

from lib_instantstyle.reference.content import (
    METHODS,
    Content,
    auto,
    auto_scale,
    cosines,
    project,
    remove,
    renormalised,
    subtract,
)
from lib_instantstyle.units.groups import CONTENT_METHODS
from lib_instantstyle.units.phrases import MAX_PHRASES

WIDTH = 1280
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
NEAR = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def image() -> Tensor:
    return torch.randn(3, WIDTH)


@pytest.fixture
def text() -> Tensor:
    return 0.7 * torch.randn(1, WIDTH)


def shown(image: Tensor, text: Tensor, share: float = 0.4) -> Tensor:
    """The pictures with something of the texts in them."""
    return image + share * text.sum(dim=0)


def content(embeds: Tensor, weights: Tensor | None = None) -> Content:
    made = torch.Generator().manual_seed(9)
    probes = torch.randn(5, embeds.shape[1], generator=made)
    return Content(embeds, torch.ones(len(embeds)) if weights is None else weights, (probes,) * len(embeds))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_subtract_is_the_official_arithmetic(image: Tensor, text: Tensor, scale: float) -> None:
    official = text.clone()
    official *= scale  # InstantStyle@6b40588 ip_adapter.py scales the text in place, then takes it from the picture
    torch.testing.assert_close(subtract(image, text, scale), image - official, **CLOSE)
    torch.testing.assert_close(remove("subtract", image, content(text), scale), image - official, **CLOSE)


def test_project_at_one_leaves_nothing_along_the_text(image: Tensor, text: Tensor) -> None:
    assert cosines(project(image, text, 1.0), text).abs().max() < 1e-6


def test_project_at_one_twice_is_project_at_one(image: Tensor) -> None:
    texts = torch.randn(3, WIDTH)
    once = project(image, texts, 1.0)
    torch.testing.assert_close(project(once, texts, 1.0), once, **CLOSE)


def test_project_removes_in_proportion_and_touches_nothing_across(image: Tensor, text: Tensor) -> None:
    removed = image - project(image, text, 1.0)
    torch.testing.assert_close(image - project(image, text, 0.25), 0.25 * removed, rtol=1e-5, atol=1e-6)
    direction = text / text.norm()
    torch.testing.assert_close(removed, (removed @ direction.T) * direction, rtol=1e-5, atol=1e-6)


def test_project_does_not_depend_on_the_length_of_the_text(image: Tensor, text: Tensor) -> None:
    torch.testing.assert_close(project(image, 5 * text, 0.5), project(image, text, 0.5), rtol=1e-5, atol=1e-6)


def test_subtract_at_the_exact_scale_equals_project_at_one(text: Tensor) -> None:
    image = torch.randn(1, WIDTH)
    exact = ((image * text).sum() / (text * text).sum()).item()
    torch.testing.assert_close(subtract(image, text, exact), project(image, text, 1.0), rtol=1e-5, atol=1e-6)


def test_project_of_several_texts_leaves_nothing_of_their_span(image: Tensor) -> None:
    texts = torch.randn(4, WIDTH)
    texts[3] = texts[0] + 0.1 * texts[1]  # says nothing new
    after = project(image, texts, 1.0)
    assert cosines(after, texts).abs().max() < 1e-6
    q = torch.linalg.qr(texts[:3].T.double())[0]
    torch.testing.assert_close(after, (image - (image.double() @ q @ q.T)).float(), **NEAR)


def test_what_two_texts_share_goes_once(image: Tensor, text: Tensor) -> None:
    twice = torch.cat([text, 3 * text, text])
    torch.testing.assert_close(project(image, twice, 0.5), project(image, text, 0.5), **NEAR)
    levels = torch.full((3, 1), 0.02)
    one = auto(shown(image, text), text, 1.0, levels)
    torch.testing.assert_close(auto(shown(image, text), twice, 1.0, levels.expand(3, 3)), one, **NEAR)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (1.3, 0.4, 1.0, 0.9)])
def test_order_of_the_texts_does_not_matter(image: Tensor, weights: tuple[float, ...]) -> None:
    texts = torch.randn(4, WIDTH)
    texts[1] += 2 * texts[0]  # texts overlap
    e, w, levels = shown(image, texts), torch.tensor(weights), 0.02 * torch.randn(3, 4)
    projected, automatic = project(e, texts, 0.8, w), auto(e, texts, 0.8, levels, w)
    for order in itertools.permutations(range(4)):
        at = list(order)
        torch.testing.assert_close(project(e, texts[at], 0.8, w[at]), projected, **NEAR)
        torch.testing.assert_close(auto(e, texts[at], 0.8, levels[:, at], w[at]), automatic, **NEAR)


def test_weight_of_one_text_multiplies_the_scale(image: Tensor, text: Tensor) -> None:
    torch.testing.assert_close(project(image, text, 0.5, torch.tensor([1.6])), project(image, text, 0.8), **NEAR)


def test_equal_weights_multiply_the_scale_of_the_whole_span(image: Tensor) -> None:
    texts = torch.randn(3, WIDTH)
    torch.testing.assert_close(project(image, texts, 0.5, torch.full((3,), 1.6)), project(image, texts, 0.8), **NEAR)


@pytest.mark.parametrize("method", [project, auto])
def test_text_of_weight_zero_might_as_well_not_be_there(method: object, image: Tensor) -> None:
    texts, weights = torch.randn(3, WIDTH), torch.tensor([1.2, 0.0, 0.7])
    e, at = shown(image, texts), [0, 2]
    if method is project:
        torch.testing.assert_close(project(e, texts, 1.0, weights), project(e, texts[at], 1.0, weights[at]), **CLOSE)
        almost = project(e, texts, 1.0, torch.tensor([1.2, 1e-4, 0.7]))
        torch.testing.assert_close(almost, project(e, texts[at], 1.0, weights[at]), rtol=1e-2, atol=1e-2)
    else:
        alone = auto(e, texts[at], 1.0, None, weights[at])
        torch.testing.assert_close(auto(e, texts, 1.0, None, weights), alone, **CLOSE)


@pytest.mark.parametrize("tau", [0.0, 0.05, 0.12, -0.1])
def test_auto_hits_the_level_of_unrelated_text(image: Tensor, text: Tensor, tau: float) -> None:
    e, levels = shown(image, text), torch.full((3, 1), tau)
    after = auto(e, text, 1.0, levels)
    torch.testing.assert_close(cosines(after, text), levels, rtol=0, atol=1e-5)
    a = e @ text[0] / text.norm()
    rest = (e - a[:, None] * text / text.norm()).norm(dim=1)
    derived = 1 - tau * rest / (a * math.sqrt(1 - tau**2))  # as the docstring derives it
    torch.testing.assert_close(auto_scale(e, text, levels), derived, **NEAR)
    for row, scale in enumerate(derived.tolist()):
        torch.testing.assert_close(project(e[row : row + 1], text, scale), after[row : row + 1], **NEAR)


def test_auto_hits_every_level_of_several_overlapping_texts(image: Tensor) -> None:
    texts = torch.randn(3, WIDTH)
    texts[1] += texts[0]
    levels = torch.tensor([[0.05, 0.08, 0.02], [0.01, 0.03, 0.0], [0.1, 0.12, -0.05]])
    after = auto(shown(image, texts), texts, 1.0, levels)
    torch.testing.assert_close(cosines(after, texts), levels, rtol=0, atol=1e-5)


def test_auto_weight_goes_a_part_of_the_way(image: Tensor, text: Tensor) -> None:
    e, levels = shown(image, text), torch.full((3, 1), 0.02)
    after = auto(e, text, 1.0, levels, torch.tensor([0.5]))
    torch.testing.assert_close(cosines(after, text), (cosines(e, text) + levels) / 2, rtol=0, atol=1e-5)


def test_auto_scale_multiplies_what_is_removed(image: Tensor, text: Tensor) -> None:
    e, levels = shown(image, text), torch.full((3, 1), 0.02)
    whole = e - auto(e, text, 1.0, levels)
    torch.testing.assert_close(e - auto(e, text, 0.5, levels), 0.5 * whole, **NEAR)


def test_auto_lets_be_what_is_at_or_under_the_level(image: Tensor, text: Tensor) -> None:
    now = cosines(image, text)
    assert torch.equal(auto(image, text, 1.0, now + 1e-6), image)
    assert torch.equal(auto(image, text, 2.0, now + 0.3), image)
    assert auto_scale(image, text, now + 0.3).tolist() == [0.0] * 3


def test_auto_never_adds_a_text_because_something_like_it_goes(text: Tensor) -> None:
    """The second text is barely above its level and goes below it with the first, which it is like."""
    like = text + 0.3 * text.norm() * torch.nn.functional.normalize(torch.randn(1, WIDTH), dim=1)
    e = shown(torch.randn(1, WIDTH), text)
    levels = torch.tensor([[0.0, cosines(e, like).item() - 0.01]])
    after = auto(e, torch.cat([text, like]), 1.0, levels)
    torch.testing.assert_close(after, auto(e, text, 1.0, levels[:, :1]), **NEAR)
    assert cosines(after, like) < levels[0, 1]


def test_levels_are_each_pictures_median_cosine_with_what_is_unrelated(image: Tensor) -> None:
    words, seen = torch.randn(5, WIDTH), torch.randn(1, WIDTH)
    both = Content(torch.randn(2, WIDTH), torch.ones(2), (words, words)) + Content(
        torch.randn(1, WIDTH), torch.ones(1), (seen,)
    )
    expected = torch.cat([cosines(image, words).median(dim=1).values[:, None].expand(3, 2), cosines(image, seen)], 1)
    torch.testing.assert_close(both.levels(image), expected, **CLOSE)
    unknown = Content(words, torch.ones(5), (torch.zeros(0, WIDTH),) * 5)
    assert torch.equal(unknown.levels(image), torch.zeros(3, 5))


@pytest.mark.parametrize("method", METHODS)
def test_text_of_zeros_and_scale_of_zero_remove_nothing(method: str, image: Tensor, text: Tensor) -> None:
    assert torch.equal(METHODS[method](image, content(torch.zeros_like(text)), 1.0), image)
    assert torch.equal(METHODS[method](image, content(text), 0.0), image)
    assert torch.equal(remove(method, image, content(torch.zeros(0, WIDTH)), 1.0), image)


@pytest.mark.parametrize("method", METHODS)
def test_zero_text_beside_a_real_one_changes_nothing(method: str, image: Tensor, text: Tensor) -> None:
    both = content(torch.cat([torch.zeros_like(text), text]))
    one = remove(method, shown(image, text), content(text), 0.7)
    torch.testing.assert_close(remove(method, shown(image, text), both, 0.7), one, **CLOSE)


@pytest.mark.parametrize("method", METHODS)
def test_picture_of_zeros_gives_numbers(method: str, text: Tensor) -> None:
    nothing = torch.zeros(1, WIDTH)
    assert remove(method, nothing, content(text), 1.0).isfinite().all()
    assert renormalised(nothing, nothing).isfinite().all()
    assert cosines(nothing, text).item() == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_picture_that_is_the_text_and_opposite_texts_give_numbers(method: str, text: Tensor) -> None:
    for texts in (text, torch.cat([text, -text]), torch.cat([text, text + 1e-7])):
        after = remove(method, text, content(texts), 1.0)
        assert after.isfinite().all()
        assert after.norm() < 10 * text.norm()


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_left_as_they_were(method: str, image: Tensor, text: Tensor) -> None:
    before = image.clone(), text.clone()
    METHODS[method](image, content(text), 0.5)
    assert torch.equal(image, before[0])
    assert torch.equal(text, before[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_loses_its_own_rounding_only(
    method: str, dtype: torch.dtype, image: Tensor, text: Tensor
) -> None:
    image = 300 * shown(image, text)  # ‖e‖² is beyond float16
    after = remove(method, image.to(dtype), content(text.to(dtype)), 0.8)
    exact = remove(method, image.to(dtype).float(), content(text.to(dtype).float()), 0.8)
    assert after.dtype == dtype
    torch.testing.assert_close(after, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
    assert renormalised(after, image.to(dtype)).isfinite().all()


def test_length_is_restored_and_the_direction_kept(image: Tensor, text: Tensor) -> None:
    after = project(image, text, 1.0)
    restored = renormalised(after, image)
    torch.testing.assert_close(restored.norm(dim=1), image.norm(dim=1), **CLOSE)
    torch.testing.assert_close(cosines(restored, after).diagonal(), torch.ones(3), **CLOSE)


def test_every_method_a_unit_may_name_exists() -> None:
    assert tuple(METHODS) == CONTENT_METHODS


def one_at_a_time(e: Tensor, texts: Tensor, levels: Tensor, weights: Tensor) -> Tensor:
    """What *auto* takes from one picture, spelt out: least squares over the things that act, the worst steps back."""
    e, t = e.double(), torch.nn.functional.normalize(texts.double(), dim=1)
    now = t @ e / e.norm()
    wanted = now - weights * (now - levels)
    acting = [i for i in range(len(t)) if weights[i] > 0 and texts[i].norm() > 0 and now[i] > levels[i]]
    while acting:
        inside, c = t[acting], wanted[acting].double()
        gram = torch.linalg.pinv(inside @ inside.mT, rtol=1e-5, hermitian=True)
        rest = e - inside.mT @ gram @ inside @ e
        length = rest.norm() / (1 - min(float(c @ gram @ c), 0.98)) ** 0.5
        amounts = gram @ (inside @ e - length * c)
        if amounts.min() >= -1e-9 * e.norm():
            return amounts @ inside
        acting = [i for i, amount in zip(acting, amounts) if amount > amounts.min() * (1 - 1e-6)]
    return torch.zeros_like(e)


@pytest.mark.parametrize("kind", ["apart", "twins", "nothing"])
@pytest.mark.parametrize(("pictures", "things"), [(1, 1), (1, 4), (7, 12)])
def test_auto_for_many_is_auto_for_each(pictures: int, things: int, kind: str) -> None:
    made = torch.Generator().manual_seed(pictures + things)
    common = torch.randn(48, generator=made)
    e, texts = (torch.randn(n, 48, generator=made) + common for n in (pictures, things))
    texts[-1] *= {"apart": 1.0, "twins": 1.0, "nothing": 0.0}[kind]
    if kind == "twins":
        texts[-1] = 2 * texts[0]
    levels, weights = 0.3 * torch.rand(pictures, things, generator=made), 0.2 + torch.rand(things, generator=made)
    expected = torch.stack([e[i] - one_at_a_time(e[i], texts, levels[i], weights) for i in range(pictures)])
    torch.testing.assert_close(auto(e, texts, 1.0, levels, weights), expected.float(), rtol=1e-5, atol=1e-5)


def test_auto_on_a_plus_adapters_tokens_and_as_many_phrases_as_may_be_takes_seconds() -> None:
    made = torch.Generator().manual_seed(1)
    common = torch.randn(64, generator=made)
    e, texts = (torch.randn(n, 64, generator=made) + common for n in (8 * 257, MAX_PHRASES))
    before = time.process_time()
    auto(e, texts, 1.0, torch.full((len(e), len(texts)), 0.2))
    assert time.process_time() - before < 15  # 2 on one core; an inverse for each token and step takes 40
