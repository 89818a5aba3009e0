"""A run that diverges ends in one line, and leaves what was there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.made import run

Command = Callable[..., str]
SMALL = (
    *("--source", "rooms:train", "--max_train_samples", 2, "--resolution", 32),
    *("--real_batch_size", 2, "--report_to", "none", "--checkpointing_steps", 1),
)
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg")


@pytest.fixture(scope="module")
def warm(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diverged") / "warm"
    steps = ("--max_train_steps", 2, "--output_dir", folder)
    run("warm-up", "--base", tiny_base, *SMALL, *HOST, *steps)
    return folder


@pytest.mark.parametrize("clipped", [True, False])
def test_a_warm_up_that_diverges_writes_no_pipeline(
    d2i1: Command, tiny_base: Path, tmp_path: Path, clipped: bool
) -> None:
    hot = ("--learning_rate", 1e30, "--max_grad_norm", 1 if clipped else 0)
    more = ("--max_train_steps", 9, "--output_dir", tmp_path / "run")
    message = d2i1("warm-up", "--base", tiny_base, *SMALL, *HOST, *hot, *more, code=2)
    (line,) = [line for line in message.splitlines() if "diverged" in line]
    assert "warm-up diverged: in step " in line and "not finite" in line
    assert "host 1e+30" in line and "nothing of it was saved" in line
    assert not (tmp_path / "run/pipeline").exists()
    for file in (tmp_path / "run").glob("checkpoint-*/exploitation.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values())


def test_self_improving_names_the_task(warm: Path, d2i1: Command, tmp_path: Path) -> None:
    inputs = ("--pipeline", warm / "pipeline", "--created", "none", *SMALL)
    hot = ("--fresh_optimizer", "true", "--learning_rate", 1e30, "--max_train_steps", 9)
    often = ("--max_grad_norm", 0, "--checkpointing_steps", 9)
    message = d2i1("self-improve", *inputs, *hot, *often, "--output_dir", tmp_path / "out", code=2)
    assert "self-improve diverged: in step" in message
    assert any(f"the loss of {task}" in message for task in ("normals", "depth", "semseg"))
    assert not (tmp_path / "out/pipeline").exists()
