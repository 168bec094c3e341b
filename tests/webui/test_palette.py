"""A reference's colours in jobs of every kind, in AUTOMATIC1111's WebUI and in Forge's kin: against AdaIN by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ..tiny import encoded, picture
from .seen import farthest, hooks, same, unit

pytest.importorskip("gradio", reason="gradio comes with the WebUI's versions")

from .fakes import A1111
from .fakes.forge import Forge, ReForge
from .fakes.sampling import images_tensor_to_samples

PICTURE = picture(5, (96, 64))


@pytest.fixture(params=[A1111, Forge, ReForge])
def anywhere(request: pytest.FixtureRequest, models: Path, tmp_path: Path) -> Iterator[Any]:
    with request.param(models, tmp_path).running() as running:
        yield running
    assert not running.swallowed


def only(**fields: Any) -> dict[str, Any]:
    return {"method": "palette", "image": encoded(PICTURE), **fields}


def by_hand(web: Any, share: float = 1.0, **fields: Any) -> Any:
    """The job without us, with the formula put where extensions may change what guidance came to."""
    now: list[Any] = []

    def calibrate(params: Any) -> None:
        progress = now[-1].step / now[-1].total_steps
        if 0.5 <= progress < 0.8:
            params.x = params.x + share * (adain(params.x, encode(params.x.shape)) - params.x)

    web.callbacks.registrar("cfg_denoiser")(lambda params: now.append(params.denoiser))
    web.callbacks.registrar("cfg_after_cfg")(calibrate)
    return web.plain(**fields)


def encode(shape: tuple[int, ...]) -> Tensor:
    import numpy as np

    size = shape[-1] * 8, shape[-2] * 8
    pixels = torch.tensor(np.asarray(PICTURE.resize(size, 1)) / 255.0).permute(2, 0, 1)[None].float()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return images_tensor_to_samples(pixels)


def adain(x: Tensor, like: Tensor) -> Tensor:
    return (x - x.mean((2, 3), True)) / x.std((2, 3), keepdim=True) * like.std((2, 3), keepdim=True) + like.mean(
        (2, 3), True
    )


LAYOUTS: dict[str, dict[str, Any]] = {
    "a batch of several prompts": {"batch_size": 2, "prompt": "a house AND a tree"},
    "hires without guidance": {"enable_hr": True, "cfg_scale": 1},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_the_formula_and_leaves_nothing(anywhere: Any, layout: str) -> None:
    fields = {"steps": 5, "width": 96, "height": 64, **LAYOUTS[layout]}
    plain = anywhere.generate(**fields)
    assert same(anywhere.generate(only(palette=0), **fields).images, plain.images)
    coloured = anywhere.generate(only(palette=0.7), **fields)
    assert same(anywhere.generate(**fields).images, plain.images)
    assert farthest(coloured.images, by_hand(anywhere, 0.7, **fields).images) <= 1
    assert farthest(coloured.images, plain.images) > 5
    assert hooks(anywhere) == 0


def test_it_goes_with_a_style(anywhere: Any) -> None:
    fields = {"steps": 4}
    styled, both = (anywhere.generate(unit(palette=share), **fields) for share in (0, 0.8))
    assert farthest(styled.images, both.images) > 10
    assert "palette: 0.8" in both.infotexts[0]
    assert "palette" not in styled.infotexts[0]


def test_its_infotext_says_nothing_that_means_nothing(anywhere: Any) -> None:
    (line,) = anywhere.generate(only(), steps=4).infotexts
    assert "method: palette" in line
    assert "weight" not in line.partition("InstantStyle 1")[2].partition("InstantStyle version")[0]


def test_one_step_is_refused_before_any_work(anywhere: Any) -> None:
    with pytest.raises(Exception, match="none of the job's 1 model calls"):
        anywhere.process(api(anywhere.job(only(), steps=1)))


def api(job: Any) -> Any:
    job.is_api = True
    return job


@pytest.fixture
def replaced(anywhere: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Another extension computes guidance by itself and calls nobody afterwards."""
    kind = type(anywhere.job().new_sampler().model_wrap_cfg)

    def alone(self: Any, denoised: Tensor) -> Tensor:
        self.step += 1
        return denoised

    monkeypatch.setattr(kind, "after_cfg", alone)
    return anywhere


def test_colours_that_nobody_asked_for_end_the_job(replaced: Any) -> None:
    with pytest.raises(Exception, match="colours did not reach"):
        replaced.process(api(replaced.job(only(), steps=4)))
    assert hooks(replaced) == 0


def test_noise_for_output_is_taken_through_the_denoised_latent(web: A1111) -> None:
    """DDIM and its kin in AUTOMATIC1111's WebUI: x = √ᾱ x₀ + √(1 − ᾱ) ε."""
    host = web.library("job").live_job().host
    alphas = torch.tensor([0.9, 0.5, 0.1])
    x, noise = torch.randn(2, 2, 4, 6, 6)
    params = type("Params", (), {"x": torch.cat([x + 9, x]), "sigma": torch.tensor([0, 0, 1, 2.0])})()
    params.denoiser = type("Denoiser", (), {"alphas": alphas})()
    alpha = torch.tensor([0.5, 0.1]).view(-1, 1, 1, 1)
    clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    expected = (x - alpha.sqrt() * (2 * clean + 1)) / (1 - alpha).sqrt()
    torch.testing.assert_close(host.denoised(params, noise, lambda one: 2 * one + 1), expected)
    assert host.denoised(params, noise, lambda one: one) is noise
