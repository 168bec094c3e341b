"""The style holds for the steps it is meant for, in both passes of a hires job; and units add up."""

from __future__ import annotations

import pytest
from live_kind import kind
from live_world import as_base64, picture
from oracle import LAYOUT, STYLE, Styling

PICTURE, OTHER = picture(0), picture(1)
UNIT = {"image": as_base64(PICTURE)}
STYLING = Styling((PICTURE,), {STYLE: 1.0})
HIRES = {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.7, **kind().hires}


def windowed(start: float, end: float, *steps: range):
    """A unit with a window, both ways: the calls of each pass in which it acts."""
    return {**UNIT, "start": start, "end": end}, Styling((PICTURE,), {STYLE: 1.0}, steps=steps)


def test_both_passes_of_a_hires_job_are_styled(by_the_book):
    job = by_the_book.assert_equal([(UNIT, STYLING)], **HIRES)
    first, second = (one.latents.shape[-2:] for one in job.passes)
    assert all(larger > side for larger, side in zip(second, first))


@pytest.mark.parametrize(
    ("start", "end", "acting"),
    [(0, 0.5, range(0, 2)), (0.5, 1, range(2, 4)), (0.2, 0.75, range(1, 3)), (0.74, 0.76, range(3, 4))],
)
def test_a_window_counts_the_steps(by_the_book, start, end, acting):
    by_the_book.assert_equal([windowed(start, end, acting)], steps=4)


def test_a_window_counts_the_calls_of_a_sampler_that_makes_two_a_step(by_the_book):
    """Two steps of Heun are counted as four calls, the last of which is not made."""
    by_the_book.assert_equal([windowed(0.5, 1, range(2, 4))], sampler_name="Heun")


def test_a_window_starts_anew_in_the_hires_pass(by_the_book):
    by_the_book.assert_equal([windowed(0.5, 1, range(2, 4), range(1, 2))], **HIRES, steps=4, hr_second_pass_steps=2)


def test_a_window_counts_the_steps_that_img2img_makes(by_the_book):
    """Of four steps, a denoising strength of 0.7 leaves three."""
    by_the_book.assert_equal([windowed(0.3, 0.6, range(1, 2))], tab="img2img", steps=4, denoising_strength=0.7)


def test_units_add_up(by_the_book):
    first = ({**UNIT, "weight": 0.7, "end": 0.5}, Styling((PICTURE,), {STYLE: 0.7}, steps=(range(1),)))
    second = (
        {"image": as_base64(OTHER), "preset": "style_and_layout", "adapter": "tiny-plus", "weight": 0.6},
        Styling((OTHER,), {STYLE: 0.6, LAYOUT: 0.6}, "tiny-plus"),
    )
    by_the_book.assert_equal([first, second])
