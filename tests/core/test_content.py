"""Taking content out of an embedding: the official arithmetic, and what projection means."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_instantstyle.core.content import METHODS, project, subtract
from lib_instantstyle.core.units import CONTENT_METHODS

WIDTH = 1280
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture
def image() -> Tensor:
    return torch.randn(3, WIDTH)


@pytest.fixture
def text() -> Tensor:
    return 0.7 * torch.randn(1, WIDTH)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_subtract_is_the_official_arithmetic(image: Tensor, text: Tensor, scale: float) -> None:
    official = text.clone()
    official *= scale  # InstantStyle@6b40588 ip_adapter.py scales the text in place, then takes it from the picture
    torch.testing.assert_close(subtract(image, text, scale), image - official, **CLOSE)


def test_project_at_one_leaves_nothing_along_the_text(image: Tensor, text: Tensor) -> None:
    cosines = torch.nn.functional.cosine_similarity(project(image, text, 1.0), text)
    assert cosines.abs().max() < 1e-6


def test_project_at_one_twice_is_project_at_one(image: Tensor, text: Tensor) -> None:
    once = project(image, text, 1.0)
    torch.testing.assert_close(project(once, text, 1.0), once, **CLOSE)


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


@pytest.mark.parametrize("method", METHODS)
def test_text_of_zeros_and_scale_of_zero_remove_nothing(method: str, image: Tensor, text: Tensor) -> None:
    assert torch.equal(METHODS[method](image, torch.zeros_like(text), 1.0), image)
    assert torch.equal(METHODS[method](image, text, 0.0), image)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_left_as_they_were(method: str, image: Tensor, text: Tensor) -> None:
    before = image.clone(), text.clone()
    METHODS[method](image, text, 0.5)
    assert torch.equal(image, before[0])
    assert torch.equal(text, before[1])


def test_every_method_a_unit_may_name_exists() -> None:
    assert tuple(METHODS) == CONTENT_METHODS
