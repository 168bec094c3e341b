"""The matrix: every sampler, every kind of pass, and what else decides how a picture is sampled."""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

import pytest
from live_case import Case
from live_world import as_base64, picture
from PIL import Image

pytestmark = pytest.mark.matrix("sampling")

SAMPLERS = (
    *("Euler", "Euler a", "LMS", "Heun", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE"),
    *("DPM++ 2M SDE Heun", "DPM++ 3M SDE", "Restart", "LCM", "DDIM", "DDIM CFG++", "PLMS", "UniPC"),
)
SCHEDULERS = ("Karras", "Exponential", "SGM Uniform", "Align Your Steps")
HIRES = {"enable_hr": True, "hr_scale": 1.5, "hr_upscaler": "Latent", "denoising_strength": 0.7}
MASK = as_base64(Image.linear_gradient("L").resize((96, 64)).point(lambda grey: 255 * (grey > 127)))
INPAINT = {"mask": MASK, "mask_blur": 0}
SOFT = {"scripts": {"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}}
LOOPBACK = {"script_name": "loopback", "script_args": [2, 0.5, "Linear", "None"]}
SD_UPSCALE = {"script_name": "sd upscale", "script_args": ["", 16, "Lanczos", 1.5]}


def img2img(**settings):
    return Case(settings, tab="img2img")


CASES = {
    **{f"sampler {name}": Case({"sampler_name": name, "steps": 3}) for name in SAMPLERS},
    **{f"scheduler {name}": Case({"scheduler": name, "steps": 3}) for name in SCHEDULERS},
    "variation seed": Case({"subseed": 7, "subseed_strength": 0.4}, matters=True),
    "seed resized": Case({"seed_resize_from_w": 64, "seed_resize_from_h": 64}, matters=True),
    "noise multiplied": Case({"sampler_name": "Euler a", "eta": 0.5, "s_noise": 1.1}),
    "batch 2, count 2": Case({"batch_size": 2, "n_iter": 2}, rows=("ccuu",)),
    "hires fix, latent": Case(HIRES),
    "hires fix, pixels": Case({**HIRES, "hr_upscaler": "Lanczos"}),
    "hires fix, own prompts": Case({**HIRES, "hr_prompt": "a dog", "hr_negative_prompt": "a house"}),
    "hires fix, own sampler and steps": Case({**HIRES, "hr_sampler_name": "DDIM", "hr_second_pass_steps": 3}),
    "hires fix, own guidance": Case({**HIRES, "hr_cfg": 2}),
    "hires fix, batch 2": Case({**HIRES, "batch_size": 2}, rows=("ccuu",)),
    "img2img": img2img(),
    "img2img, batch 2": Case({"batch_size": 2}, tab="img2img", rows=("ccuu",)),
    "img2img, strength 1": img2img(denoising_strength=1),
    "img2img, all steps": img2img(options={"img2img_fix_steps": True}),
    "inpaint, whole picture": img2img(**INPAINT),
    "inpaint, only masked": img2img(**INPAINT, inpaint_full_res=True, inpaint_full_res_padding=8),
    "inpaint, filled with noise": img2img(**INPAINT, inpainting_fill=2),
    "soft inpainting": img2img(**INPAINT, **SOFT),
    "loopback": img2img(**LOOPBACK),
    "SD upscale": img2img(**SD_UPSCALE),
}


@pytest.mark.parametrize("name", CASES)
def test_case(examine, name):
    examine(CASES[name])


def test_a_folder_of_pictures_is_styled_one_by_one(examine, tmp_path):
    for number in range(2):
        picture(number, (96, 64)).save(tmp_path / f"{number}.png")
    examine(Case(tab="img2img", inside=lambda: batch_from(tmp_path)))


@contextmanager
def batch_from(folder):
    """img2img jobs of the API run as the panel's tab "Batch" does, over a folder."""
    from modules import img2img as tab

    def process(p):
        results = folder / "results"
        results.mkdir(exist_ok=True)
        return tab.process_batch(p, str(folder), str(results), "", p.script_args)

    with mock.patch("modules.api.api.process_images", process):
        yield


def test_a_grid_over_the_hosts_own_settings_is_styled(examine):
    """Steps and guidance: four jobs in one."""
    examine(Case({"script_name": "x/y/z plot", "script_args": plot(("Steps", "2, 3"), ("CFG Scale", "3, 6"))}))


def plot(*axes):
    """The X/Y/Z script's arguments for some of the host's axes."""
    from modules import scripts

    script = next(one for one in scripts.scripts_txt2img.selectable_scripts if one.title() == "X/Y/Z plot")
    labels = [option.label for option in script.current_axis_options]
    chosen = [part for label, values in axes for part in (labels.index(label), values, [])]
    nothing = [0, "", []] * (3 - len(axes))
    draw_legend, lone_images, sub_grids, random_seeds = False, True, False, False
    vary_seeds, margin, as_csv = [False] * 3, 0, False
    return [*chosen, *nothing, draw_legend, lone_images, sub_grids, random_seeds, *vary_seeds, margin, as_csv]
