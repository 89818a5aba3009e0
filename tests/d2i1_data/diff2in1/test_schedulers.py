"""Schedulers: those of diffusers that create, on the schedule of a call, and those that cannot."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from d2i1_data import Diff2in1Pipeline
from d2i1_data.creation.settings import CreateSettings
from d2i1_data.diff2in1.ddim import timesteps
from d2i1_data.diff2in1.schedulers import SCHEDULERS, follow, make_sampler
from d2i1_data.errors import InputError
from tests.made import SEVEN, rows

LEVELS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MULTISTEP = (DPMSolverMultistepScheduler, UniPCMultistepScheduler)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (16, 24, 3), np.uint8) for _ in range(count)]


def swap(pipe: Diff2in1Pipeline, kind: Any) -> Diff2in1Pipeline:
    """As people do it."""
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    return pipe


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("kind", SCHEDULERS.values())
def test_a_perfect_unet_leads_back_to_the_image(
    tiny_pipe: Diff2in1Pipeline, kind: Any, prediction: str
) -> None:
    scheduler = kind(**LEVELS, prediction_type=prediction)
    backbone = replace(tiny_pipe.backbone, scheduler=scheduler)
    schedule = torch.tensor([timesteps(s, 6) for s in (0.3, 0.6, 1.0, 0.3)]).T
    sampler = make_sampler(backbone, schedule)
    clean, noise = torch.randn(2, 4, 4, 6, 6, generator=seeded(0)[0])
    noisy = sampler.begin(clean, noise)
    abar = scheduler.alphas_cumprod[schedule[0]].view(-1, 1, 1, 1)
    expected = abar.sqrt() * clean + (1 - abar).sqrt() * noise  # noise is added at exactly T
    torch.testing.assert_close(sampler.scale(noisy, 0), expected, atol=1e-4, rtol=1e-4)
    for step, t in enumerate(schedule):
        abar = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        seen = sampler.scale(noisy, step)
        eps = (seen - abar.sqrt() * clean) / (1 - abar).sqrt()
        velocity = abar.sqrt() * eps - (1 - abar).sqrt() * clean
        noisy = sampler.advance(eps if prediction == "epsilon" else velocity, step, noisy)
    end = 0.04 if kind is DDIMScheduler else 1e-3  # DDIM ends at the level of t = 0
    assert (noisy - clean).abs().max() < end * 5


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, *MULTISTEP])
def test_timesteps_of_ones_own_are_those_of_diffusers(kind: Any) -> None:
    theirs = kind(**LEVELS, timestep_spacing="trailing")
    theirs.set_timesteps(8)
    ours = follow(theirs, tuple(theirs.timesteps.int().tolist()))
    assert torch.equal(ours.timesteps, theirs.timesteps)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas)
    x, output = torch.randn(2, 1, 4, 6, 6, generator=seeded(0)[0])
    one, other = x, x
    for t in theirs.timesteps:
        one = ours.step(output, t, ours.scale_model_input(one, t)).prev_sample
        other = theirs.step(output, t, theirs.scale_model_input(other, t)).prev_sample
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, *MULTISTEP])
def test_no_row_depends_on_another_or_on_an_earlier_call(
    tiny_pipe: Diff2in1Pipeline, kind: Any
) -> None:
    images, strengths = pictures(3), [0.3, 0.6, 0.3]
    options = {"num_inference_steps": 3, "output_type": "pt"}
    plain = tiny_pipe(images[0], strength=0.3, generator=seeded(0), **options)
    pipe = swap(tiny_pipe, kind)
    batch = pipe(images, strength=strengths, generator=seeded(0, 1, 2), **options)
    assert not torch.equal(batch.images[0], plain.images[0])
    again = pipe(images, strength=strengths, generator=seeded(0, 1, 2), **options)
    for n in (0, 1):
        assert torch.equal(batch.images[n], again.images[n])
        alone = pipe(images[n], strength=strengths[n], generator=seeded(n), **options)
        torch.testing.assert_close(batch.images[n], alone.images[0], atol=1 / 255, rtol=0)


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, *MULTISTEP])
def test_creation_from_pure_noise_and_from_the_last_step(
    tiny_pipe: Diff2in1Pipeline, kind: Any
) -> None:
    pipe, options = swap(tiny_pipe, kind), {"num_inference_steps": 3, "output_type": "pt"}
    found = pipe(prompt=["a room", "a cone"], labels_from="last_step", **options)
    assert all(image.isfinite().all() and image.std() > 0 for image in found.images)
    latents = pipe(prompt="a room", num_inference_steps=3, output_type="latent").images[0]
    assert 0.1 < latents.std() < 10  # neither noise of Euler's scale nor nothing


def test_a_pipeline_keeps_its_scheduler_when_it_is_saved(
    tiny_pipe: Diff2in1Pipeline, tmp_path: Path
) -> None:
    pipe = swap(tiny_pipe, UniPCMultistepScheduler)
    options = {"num_inference_steps": 3, "output_type": "pt"}
    pipe.save_pretrained(tmp_path)
    loaded = Diff2in1Pipeline.from_pretrained(tmp_path)
    assert type(loaded.scheduler) is UniPCMultistepScheduler
    one, other = (p(pictures(1), generator=seeded(0), **options).images[0] for p in (pipe, loaded))
    assert torch.equal(one, other)
    level = torch.tensor([500])
    clean, noise = torch.randn(2, 1, 4, 6, 6, generator=seeded(0)[0])
    ddim = DDIMScheduler.from_config(loaded.scheduler.config)  # training adds noise at any level
    expected = ddim.add_noise(clean, noise, level)
    torch.testing.assert_close(
        loaded.backbone.noise_levels.add_noise(clean, noise, level), expected
    )


@pytest.mark.parametrize(
    ("kind", "settings", "wrong"),
    [
        (PNDMScheduler, {}, "PNDMScheduler cannot create: expected one of DDIM"),
        (LCMScheduler, {}, "LCMScheduler cannot create"),
        (EulerAncestralDiscreteScheduler, {}, "EulerAncestralDiscreteScheduler cannot create"),
        (EulerDiscreteScheduler, {"use_karras_sigmas": True}, "use_karras_sigmas=True"),
        (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, "sde-dpmsolver"),
    ],
)
def test_others_are_refused_and_still_predict(
    tiny_pipe: Diff2in1Pipeline, kind: Any, settings: dict[str, Any], wrong: str
) -> None:
    tiny_pipe.scheduler = kind.from_config(tiny_pipe.scheduler.config, **settings)
    with pytest.raises(ValueError, match=wrong) as caught:
        tiny_pipe(pictures(1), num_inference_steps=2)
    assert "\n" not in str(caught.value)
    assert tiny_pipe.predict(pictures(1)).predictions


def test_the_setting_has_all_schedulers() -> None:
    hint = get_type_hints(CreateSettings)["scheduler"]
    (names,) = (one for one in get_args(hint) if one is not type(None))
    assert names == Literal[tuple(SCHEDULERS)]
    with pytest.raises(InputError, match="--scheduler pndm: expected one of ddim"):
        CreateSettings(pipeline="p", source="rooms", output_dir="o", scheduler="pndm")  # type: ignore


def test_a_dataset_says_its_scheduler(
    create: Callable[..., Path], pipeline: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    folder = create(tmp_path / "created", "--scheduler", "dpm++")
    name = "DPMSolverMultistepScheduler"
    assert json.loads((folder / "plan.json").read_text())["scheduler"] == name
    assert {row["provenance"]["scheduler"] for row in rows(folder)} == {name}
    assert name in (folder / "README.md").read_text()
    assert "--scheduler" in (folder / "README.md").read_text()
    flags = ("create", "--pipeline", pipeline, *SEVEN, "--output_dir", folder)
    assert f'scheduler: "{name}", now "DDIMScheduler"' in d2i1(*flags, code=2)
    refused = d2i1(*flags, "--scheduler", "pndm", code=2)
    assert "pndm" in refused and "dpm++" in refused
    d2i1("create", "--verify", folder, "--rows", 1)
