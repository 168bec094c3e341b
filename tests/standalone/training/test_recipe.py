"""The formulas of the official recipe against diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from diffusers.optimization import get_scheduler

from lib_instantstyle.standalone.training.draws import Draw
from lib_instantstyle.standalone.training.recipe import (
    dropped,
    latents_of,
    loss_of,
    loss_weights,
    noise_of,
    noise_schedule,
    rate_at,
    target_of,
)
from lib_instantstyle.units.errors import IncompatibleModelError

from .conftest import SettingsMaker

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_are_the_papers_whatever_the_pipeline_samples_with(prediction: str) -> None:
    """x = √ᾱ x₀ + √(1 − ᾱ) ε and v = √ᾱ ε − √(1 − ᾱ) x₀, with ᾱ written out from SDXL's betas."""
    schedule = noise_schedule(EulerDiscreteScheduler(**SDXL, prediction_type=prediction))
    latents, noise, times = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0, 500, 999])
    alpha = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)[times].view(-1, 1, 1, 1)
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    torch.testing.assert_close(schedule.add_noise(latents, noise, times), signal * latents + spread * noise)
    wanted = noise if prediction == "epsilon" else signal * noise - spread * latents
    torch.testing.assert_close(target_of(schedule, latents, noise, times), wanted)


def test_a_model_that_predicts_the_picture_is_refused() -> None:
    with pytest.raises(IncompatibleModelError, match="sample"):
        noise_schedule(DDPMScheduler(prediction_type="sample"))


def test_latents_are_drawn_from_the_posterior_and_scaled() -> None:
    moments = torch.stack([torch.full((1, 4, 30, 30), 3.0), torch.full((1, 4, 30, 30), 0.5)], dim=1)
    latents = latents_of(moments, [Draw(0, 1)], 0.13)
    assert float(latents.mean()) == pytest.approx(3 * 0.13, abs=0.01)
    assert float(latents.std()) == pytest.approx(0.5 * 0.13, abs=0.01)


def test_the_noise_offset_moves_whole_channels() -> None:
    draws = [Draw(0, number) for number in range(2)]
    moved = noise_of(draws, (4, 5, 5), 0.3) - noise_of(draws, (4, 5, 5), 0.0)
    torch.testing.assert_close(moved, moved[:, :, :1, :1].expand_as(moved))
    assert moved[0, 0, 0, 0] != moved[0, 1, 0, 0]


def test_prompts_are_dropped_as_often_as_the_recipe_says(settings: SettingsMaker) -> None:
    found = [dropped(Draw(0, number), settings()) for number in range(6000)]
    for wanted in ((True, False), (False, True), (True, True)):
        assert found.count(wanted) / len(found) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(
    ("share", "wanted"), [("image", (True, False)), ("text", (False, True)), ("both", (True, True))]
)
def test_each_kind_of_dropout_drops_what_it_is_named_for(
    settings: SettingsMaker, share: str, wanted: tuple[bool, bool]
) -> None:
    none = {"drop_image": 0.0, "drop_text": 0.0, "drop_both": 0.0}
    always = settings(**{**none, f"drop_{share}": 1.0})
    assert {dropped(Draw(0, number), always) for number in range(50)} == {wanted}
    assert {dropped(Draw(0, number), settings(**none)) for number in range(50)} == {(False, False)}


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_the_rate_equals_diffusers_schedules(settings: SettingsMaker, name: str) -> None:
    given = settings(schedule=name, warmup=4, steps=20, rate=1.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    kind = "constant_with_warmup" if name == "constant" else name
    theirs = get_scheduler(kind, optimizer, num_warmup_steps=4, num_training_steps=20)
    for step in range(20):
        optimizer.step()
        if step >= 4:  # theirs begins at 0, where a step would be wasted
            assert rate_at(step, given) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        theirs.step()
    assert [rate_at(step, given) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_errors_count_by_what_they_do_to_the_picture_when_asked() -> None:
    schedule = DDPMScheduler(trained_betas=[0.01, 0.49 / 0.99, 0.98])  # ᾱ of 0.99, 0.5 and 0.01
    times = torch.tensor([0, 1, 2])
    assert loss_weights(schedule, times, "noise") is None
    clean, middle, noisy = loss_weights(schedule, times, "picture").tolist()
    assert clean == pytest.approx(5 / 99 * 100 / 99, rel=1e-3)  # held down by min-SNR
    assert middle == pytest.approx(2.0)  # 1 + 1/SNR
    assert noisy == pytest.approx(100.0, rel=1e-3)


def test_the_loss_is_the_weighted_mean_over_samples() -> None:
    wrong, right = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    assert loss_of(wrong, right, torch.tensor([1.0, 3.0])).item() == 2.0
    assert loss_of(wrong, right).item() == 1.0
