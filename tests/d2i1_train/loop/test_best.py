"""--best_metric: `best` is a checkpoint of one step, and everything made from the run takes it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from d2i1_train.loop.checkpoint import BEST, checkpoint_of, read_counters
from d2i1_train.loop.optimizer import optimizer_file
from d2i1_train.loop.reopen import open_theta
from d2i1_train.theta import make_theta
from tests.made import contents, run

ROOMS = (
    *("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32),
    *("--real_batch_size", 2, "--report_to", "none", "--checkpointing_steps", 3),
)
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,depth")
VALIDATE = ("--validation_source", "rooms:val", "--num_validation_samples", 2)
VALIDATE += ("--validation_steps", 1, "--best_metric", "depth.abs_rel")
HIGH = ("--learning_rate", 3)  # so high that the last weights are not the best
STEPS = 6
LATEST = ("--resume_from_checkpoint", "latest")


def warm_up(base: Path, folder: Path, *flags: object) -> Path:
    run("warm-up", "--base", base, *ROOMS, *HOST, *HIGH, "--output_dir", folder, *flags)
    return folder


@pytest.fixture(scope="module")
def warm(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best") / "warm"
    limit = ("--checkpoints_total_limit", 1)
    return warm_up(tiny_base, folder, *VALIDATE, "--max_train_steps", STEPS, *limit)


def facts(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / BEST / "best.json").read_text())
    return found


def theta(pipeline: Path, name: str) -> dict[str, Tensor]:
    return dict(make_theta(open_theta(str(pipeline), name)).named_parameters())


def assert_holds(found: dict[str, Tensor], file: Path) -> None:
    stored = load_file(file)
    assert stored
    for name in stored.keys() & found.keys():  # the others are buffers
        assert torch.equal(found[name], stored[name]), name


def test_it_is_a_checkpoint_beside_the_others(warm: Path) -> None:
    last = warm / f"checkpoint-{STEPS}"
    assert [path.name for path in warm.glob("checkpoint-*")] == [last.name]
    assert {*contents(warm / BEST)} == {*contents(last), "best.json"}
    assert facts(warm)["step"] == read_counters(warm / BEST).step < STEPS


def test_weights_and_optimiser_are_of_one_step(warm: Path, tiny_base: Path, tmp_path: Path) -> None:
    step = facts(warm)["step"]
    short = warm_up(tiny_base, tmp_path / "short", "--max_train_steps", step)
    for name in ("exploitation.safetensors", "optimizer.bin", "counters.json"):
        one, other = (path / name for path in (warm / BEST, short / f"checkpoint-{step}"))
        assert one.read_bytes() == other.read_bytes(), name
    assert not (short / BEST).exists()


def test_what_is_made_from_the_run_takes_it(warm: Path, tmp_path: Path) -> None:
    pipeline = warm / "pipeline"
    assert checkpoint_of(str(pipeline)) == warm / BEST
    assert optimizer_file(str(pipeline)) == warm / BEST / "optimizer.bin"
    for name in ("creation", "exploitation"):
        assert_holds(theta(pipeline, name), warm / BEST / "exploitation.safetensors")
    few = ("--source", "rooms:train", "--num_samples", 2, "--num_inference_steps", 2)
    made = tmp_path / "made"
    run("create", "--pipeline", pipeline, *few, "--resolution", 32, "--output_dir", made)
    improved = tmp_path / "improved"
    command = ("self-improve", "--pipeline", pipeline, "--created", made, *ROOMS, *HIGH, *VALIDATE)
    often = ("--follow_every", 1, "--alpha", 0.5, "--max_train_steps", 4)
    run(*command, *often, "--output_dir", improved)
    assert facts(improved)["step"] == read_counters(improved / BEST).step
    for name in ("creation", "exploitation"):
        file = improved / BEST / f"{name}.safetensors"
        assert_holds(theta(improved / "pipeline", name), file)
    assert (
        load_file(file).keys()
        and file.read_bytes() != file.with_name("creation.safetensors").read_bytes()
    )


def test_resumed_equals_uninterrupted(warm: Path, tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "warm"
    warm_up(tiny_base, folder, *VALIDATE, "--max_train_steps", 3)
    limit = ("--max_train_steps", STEPS, "--checkpoints_total_limit", 1)
    warm_up(tiny_base, folder, *VALIDATE, *limit, *LATEST)
    for part in (BEST, "pipeline"):
        one, other = contents(warm / part), contents(folder / part)
        assert one.keys() == other.keys()
        drawn = {*one} - {"random_states_0.pkl", "manifest.json"}  # nothing uses these states
        assert [name for name in drawn if one[name] != other[name]] == []


def test_a_run_without_a_best_metric_has_none(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "warm"
    warm_up(tiny_base, folder, *VALIDATE, "--max_train_steps", 3)
    assert (folder / BEST).is_dir()
    warm_up(tiny_base, folder, "--max_train_steps", 4, *LATEST)
    assert not (folder / BEST).exists()
    pipeline, last = folder / "pipeline", folder / "checkpoint-4"
    assert checkpoint_of(str(pipeline)) == last
    assert_holds(theta(pipeline, "creation"), last / "exploitation.safetensors")


def test_another_metric_starts_again(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "warm"
    warm_up(tiny_base, folder, *VALIDATE, "--max_train_steps", 3)
    other = (*VALIDATE[:-1], "depth.delta1", "--max_train_steps", 4)
    warm_up(tiny_base, folder, *other, *LATEST)
    assert (facts(folder)["metric"], facts(folder)["step"]) == ("depth.delta1", 4)
