"""Bases taken for what they are: noise or velocity by the denoising error; zero terminal SNR."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from d2i1_data.diff2in1 import Base, Diff2in1Pipeline
from d2i1_data.diff2in1.backbone import Backbone, has_zero_snr
from d2i1_data.diff2in1.checkpoint import EMBEDDED
from d2i1_data.diff2in1.ddim import timesteps
from tests.tiny import mount_tiny, save_single_file, save_tiny_base

ROOMS = EMBEDDED / "rooms"
SCHEDULER = "scheduler/scheduler_config.json"
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)


def edit(file: Path, **entries: Any) -> None:
    """Set entries of a JSON file; None removes one."""
    content = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: one for key, one in content.items() if one is not None}))


@pytest.fixture(scope="module")
def untold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base for rooms, which predicts noise, in a folder that does not say so."""
    folder = shutil.copytree(ROOMS, tmp_path_factory.mktemp("untold") / "base")
    edit(folder / SCHEDULER, prediction_type=None)
    return folder


def learn(base: Path, steps: int) -> None:
    """Teach the U-Net of a base its own target on flat latents."""
    parts = Base(str(base), prediction_type="v_prediction").load()
    backbone, unet = Backbone.of(parts), parts.unet.train()
    text = backbone.encode_text([""] * 4, "cpu").unet_arguments()
    text = {key: one.detach() if torch.is_tensor(one) else one for key, one in text.items()}
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(unet.parameters(), 5e-3)
    colours = torch.rand(64, 3, 4, 4) * 2 - 1
    pixels = torch.nn.functional.interpolate(colours, (32, 32), mode="bilinear")
    latents = backbone.encode_image(pixels).detach()
    for step in range(steps):
        chosen = latents[torch.arange(4) * 16 + step % 16]
        noise, t = torch.randn_like(chosen), torch.tensor([500, 700, 900, 700])
        output = unet(parts.scheduler.add_noise(chosen, noise, t), t, **text).sample
        loss = torch.nn.functional.mse_loss(output, backbone.training_target(chosen, noise, t))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.save_pretrained(base / "unet")


def test_the_denoising_error_tells_noise_from_velocity(untold: Path, tmp_path: Path) -> None:
    """A folder, and a file with configs, that do not state it; a file that diffusers guesses."""
    configs = shutil.ignore_patterns("*.safetensors")
    config = shutil.copytree(untold, tmp_path / "config", ignore=configs)
    file = save_single_file(untold, tmp_path / "rooms.safetensors")
    for base in (Base(str(untold)), Base(str(file), config=str(config))):
        parts = base.load()
        assert parts.scheduler.config.prediction_type == "epsilon"
    # by the width of a text encoder of 2.x diffusers would take every file for a velocity
    parts.scheduler.register_to_config(prediction_type="v_prediction")
    Base(str(file))._settle_prediction_type(parts)
    assert parts.scheduler.config.prediction_type == "epsilon"

    velocity = save_tiny_base(tmp_path / "base", "v_prediction")
    learn(velocity, 60)
    edit(velocity / SCHEDULER, prediction_type=None)
    assert Base(str(velocity)).load().scheduler.config.prediction_type == "v_prediction"


def test_what_the_error_does_not_tell_is_asked(d2i1: Callable[..., str], tmp_path: Path) -> None:
    base, run = save_tiny_base(tmp_path / "base"), tmp_path / "run"
    edit(base / SCHEDULER, prediction_type=None)
    command = ("warm-up", "--base", base, "--source", "rooms:train", "--resolution", 32)
    command += ("--host", "light", "--width", 16, "--tasks", "depth", "--max_train_samples", 2)
    command += ("--real_batch_size", 2, "--max_train_steps", 1, "--report_to", "none")
    told = d2i1(*command, "--output_dir", run, code=2)
    assert f"base {base}: nothing says what its U-Net predicts" in told
    assert "--prediction_type epsilon or v_prediction" in told and not run.exists()
    d2i1(*command, "--prediction_type", "v_prediction", "--output_dir", run)
    index = json.loads((run / "pipeline" / SCHEDULER).read_text())
    assert index["prediction_type"] == "v_prediction"


def test_pure_noise_begins_at_the_last_timestep() -> None:
    """Where `trailing` of diffusers begins; other bases keep the schedule of the paper."""
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert has_zero_snr(scheduler) and not has_zero_snr(DDIMScheduler())
    for steps in (1, 7, 25, 50):
        scheduler.set_timesteps(steps)
        assert timesteps(1, steps, zero_snr=True)[0] == scheduler.timesteps[0] == 999
    scheduler.set_timesteps(50)
    assert timesteps(1, 50, zero_snr=True) == scheduler.timesteps.tolist()
    assert timesteps(0.6, 50, zero_snr=True)[0] == 599
    assert timesteps(1, 50)[0] == 981


@pytest.fixture(scope="module")
def zero_snr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_base(tmp_path_factory.mktemp("zero") / "base", "v_prediction")
    edit(folder / SCHEDULER, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    return folder


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("labels_from", ["latent", "last_step", "image"])
def test_zero_snr_stays_finite(zero_snr: Path, labels_from: Any, steps: int) -> None:
    pipe = mount_tiny(zero_snr, "light")
    assert has_zero_snr(pipe.scheduler)
    for image, strength in ((None, 1.0), (IMAGE, 1.0), (IMAGE, 0.5)):
        found = pipe(
            image,
            "a room",
            strength,
            steps,
            labels_from=labels_from,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        )
        maps = (*found.predictions.values(), *found.uncertainty.values())
        for one in (*found.images, *(arrays[0] for arrays in maps)):
            assert np.isfinite(one).all()


def test_noise_of_a_zero_snr_base_has_nothing_of_the_image(zero_snr: Path) -> None:
    """At strength 1 the image does not matter; one timestep earlier it would."""
    pipe = mount_tiny(zero_snr, "light")

    def created(image: np.ndarray) -> np.ndarray:
        seed = torch.Generator().manual_seed(0)
        return np.asarray(pipe(image, "a room", 1.0, 2, generator=seed).images[0])

    np.testing.assert_array_equal(created(IMAGE), created(255 - IMAGE))


def test_zero_snr_with_epsilon_is_refused(zero_snr: Path) -> None:
    with pytest.raises(ValueError, match="ends in pure noise"):
        Diff2in1Pipeline.from_base(Base(str(zero_snr), prediction_type="epsilon"), "light", {})
