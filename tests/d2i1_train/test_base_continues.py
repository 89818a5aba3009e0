"""The training of a base continues as it began, alone in its folder, and stops if it diverges."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from d2i1_data.dataset.files import locked
from d2i1_data.errors import InputError
from d2i1_train.scratch.fit import STATE, Fit, fit
from tests.made import contents, run

D2i1 = Callable[..., str]
TINY = (
    *("--vae_channels", "[8,16]", "--unet_channels", "[16,32]", "--text_width", 32),
    *("--text_layers", 1, "--vae_batch_size", 2, "--unet_batch_size", 2, "--unet_steps", 1),
    *("--dataloader_num_workers", 0, "--vae_steps", 2, "--max_train_samples", 2),
)
LATEST = ("--resume_from_checkpoint", "latest")
RECIPE = Fit(steps=2, learning_rate=1e-3, ema_decay=0.9, every=1, seed=0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    run("base", "--source", "rooms:train", "--resolution", 32, *TINY, "--output_dir", folder)
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--unet_learning_rate", 1, "--seed", 1), "unet_learning_rate: recorded 0.001, given 1.0"),
        (("--source", "rooms:val"), "samples: recorded"),
    ],
)
def test_a_base_continues_as_it_began(
    d2i1: D2i1, base: Path, tmp_path: Path, flags: tuple[object, ...], message: str
) -> None:
    folder = shutil.copytree(base, tmp_path / "base")
    before = contents(folder)
    source = () if "--source" in flags else ("--source", "rooms:train")
    command = ("base", *source, "--resolution", 32, *TINY, "--output_dir", folder)
    assert message in d2i1(*command, *flags, *LATEST, code=2)
    with locked(folder):
        assert "another run is writing it" in d2i1(*command, *LATEST, code=2)
    assert contents(folder) == before


def test_only_latest_names_a_state(d2i1: D2i1, tmp_path: Path) -> None:
    flags = ("--resume_from_checkpoint", "checkpoint-5", "--output_dir", tmp_path / "out")
    assert "expected latest" in d2i1("base", *flags, code=2)


def train(folder: Path, target: float = 0.0, recipe: Fit = RECIPE) -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)

    def loss(generator: torch.Generator) -> torch.Tensor:
        batch = torch.rand(2, 4, generator=generator)
        return (model(batch) - target).square().mean()

    fit("vae", model, loss, recipe, folder, lambda: None)
    return model


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    file = tmp_path / "vae" / STATE
    whole = file.read_bytes()
    for data in (b"", whole[:50], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"is damaged .*: delete it to train vae anew"):
            train(tmp_path)


def test_a_state_of_an_earlier_version_opens(tmp_path: Path) -> None:
    """It has no hash."""
    trained = train(tmp_path)
    file = tmp_path / "vae" / STATE
    with safe_open(file, "pt") as opened:
        step = opened.metadata()["step"]
    save_file(load_file(file), file, {"step": step})
    assert torch.equal(train(tmp_path).weight, trained.weight)


def test_a_base_that_diverges_stops(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="base diverged: in step 1 of vae the loss is inf"):
        train(tmp_path, target=1e30)
    assert not (tmp_path / "vae").exists()
