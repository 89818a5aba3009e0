"""The one-cycle schedule, and clipping."""

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.errors import InputError
from d2i1_train.loop.optimizer import make_beta1, make_optimizer, make_schedule
from d2i1_train.loop.settings import ONE_CYCLE_SETTINGS
from d2i1_train.settings import WarmUpSettings
from d2i1_train.theta import make_theta
from tests.made import run

SMALL = ("--source", "rooms:train", "--max_train_samples", 4, "--resolution", 32)
SMALL += ("--real_batch_size", 2, "--report_to", "none", "--learning_rate", 1e-3)
HOST = ("--host", "light", "--width", 16, "--tasks", "normals,depth,semseg")
STEPS = ("--max_train_steps", 4, "--checkpointing_steps", 1)
CYCLE = ("--lr_scheduler", "one_cycle", "--lr_pct_start", 0.5, "--lr_div_factor", 4)


def settings(**more: object) -> WarmUpSettings:
    fixed = {"source": "rooms:train", "output_dir": "unused", "host": "light"}
    return WarmUpSettings(**{**fixed, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def train(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Warm up four steps with these flags; the run's folder."""
    folder, number = tmp_path_factory.mktemp("recipes"), count()

    def train(*flags: object) -> Path:
        place = folder / str(next(number))
        command = ("warm-up", "--base", tiny_base, *SMALL, *HOST, *STEPS, *flags)
        run(*command, "--output_dir", place)
        return place

    return train


@pytest.fixture(scope="module")
def cycled(train: Callable[..., Path]) -> Path:
    """A run with a one-cycle schedule."""
    return train(*CYCLE)


def optimizer_state(folder: Path, step: int = 4) -> dict[str, dict[int, dict[str, Tensor]]]:
    return torch.load(folder / f"checkpoint-{step}" / "optimizer.bin", weights_only=True)


def theta(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoint-4/exploitation.safetensors")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


# --- one cycle ---


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(
    ("steps", "rise", "start", "final"),
    [
        (1, 0.3, 25.0, 1e4),
        (2, 0.9, 25.0, 1e4),
        (40, 0.3, 25.0, 1e4),
        (40, 0.3, 1.0, 10.0),
        (37, 0.5, 16.67, 1.0),
        (11, 0.0, 25.0, 1e4),
        (11, 1.0, 25.0, 1e4),
    ],
)
def test_one_cycle_is_that_of_torch(
    tiny_pipe: Diff2in1Pipeline,
    steps: int,
    rise: float,
    start: float,
    final: float,
    anneal: str,
) -> None:
    """At every step, for two groups, each with a rate of its own."""
    tiny_pipe.register_to_config(trained_unet="full")
    shape = {"lr_pct_start": rise, "lr_div_factor": start, "lr_final_div_factor": final}
    own = settings(
        lr_scheduler="one_cycle",
        max_train_steps=steps,
        learning_rate=3e-3,
        unet_learning_rate=2e-5,
        lr_anneal=anneal,
        **shape,
    )
    optimizer = make_optimizer(make_theta(tiny_pipe), own)
    rate, beta1 = make_schedule(optimizer, own), make_beta1(own)
    assert beta1 is not None
    tops = [2e-5, 3e-3]
    theirs = torch.optim.AdamW(
        [{"params": [nn.Parameter(torch.ones(1))]} for _ in tops], fused=True
    )
    schedule = OneCycleLR(
        theirs,
        tops,
        total_steps=steps,
        pct_start=rise,
        div_factor=start,
        final_div_factor=final,
        anneal_strategy=anneal,  # type: ignore[arg-type]
    )
    for step in range(steps):
        found = [group["initial_lr"] * rate(step) for group in optimizer.param_groups]
        wanted = [group["lr"] for group in theirs.param_groups]
        assert found == pytest.approx(wanted, rel=1e-9, abs=0), step
        for group in theirs.param_groups:
            assert beta1(step) == pytest.approx(group["betas"][0], rel=1e-12), step
        theirs.step()
        if step + 1 < steps:
            schedule.step()


def test_a_rise_of_one_step_begins_at_the_top() -> None:
    """Where torch's divides by zero."""
    own = settings(lr_scheduler="one_cycle", max_train_steps=4, lr_pct_start=0.25)
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(1))])
    rate, beta1 = make_schedule(optimizer, own), make_beta1(own)
    assert beta1 is not None and (rate(0), beta1(0)) == (1, 0.85)
    assert rate(3) == pytest.approx(1 / 25 / 1e4) and beta1(3) == pytest.approx(0.95)


@pytest.mark.parametrize("name", ["constant", "cosine"])
def test_other_schedules_leave_beta_alone(name: str) -> None:
    assert make_beta1(settings(lr_scheduler=name)) is None
    assert make_beta1(settings(lr_scheduler="one_cycle", lr_cycle_beta1=False)) is None


def test_a_run_steps_with_the_rates_and_betas_of_its_cycle(cycled: Path) -> None:
    for step, (rate, beta1) in enumerate([(0.25, 0.95), (1, 0.85), (0.5, 0.9), (0, 0.95)], 1):
        (group,) = optimizer_state(cycled, step)["param_groups"]
        assert group["lr"] == pytest.approx(1e-3 * rate, abs=1e-6)
        assert group["betas"] == pytest.approx((beta1, 0.999), abs=1e-9)


def test_a_cycle_resumed_equals_one_that_was_not(
    tiny_base: Path, cycled: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(cycled, tmp_path / "run")
    for name in ("checkpoint-2", "checkpoint-3", "checkpoint-4", "pipeline"):
        shutil.rmtree(folder / name)
    command = ("warm-up", "--base", tiny_base, *SMALL, *HOST, *STEPS, *CYCLE)
    run(*command, "--output_dir", folder, "--resume_from_checkpoint", "latest")
    for file in ("exploitation.safetensors", "optimizer.bin"):
        one, other = (f / "checkpoint-4" / file for f in (folder, cycled))
        assert one.read_bytes() == other.read_bytes(), file


def test_beta_changes_what_is_learned(train: Callable[..., Path], cycled: Path) -> None:
    assert not equal(theta(train(*CYCLE, "--lr_cycle_beta1", "false")), theta(cycled))


def test_self_improving_begins_a_cycle_of_its_own(cycled: Path, tmp_path: Path) -> None:
    command = ("self-improve", "--pipeline", cycled / "pipeline", *SMALL, *STEPS)
    for name, schedule in {"cycle": CYCLE, "constant": ("--lr_scheduler", "constant")}.items():
        run(*command, *schedule, "--output_dir", tmp_path / name)
        for step, beta1 in enumerate((0.95, 0.85, 0.9, 0.95), 1):
            found = optimizer_state(tmp_path / name, step)
            (group,) = found["param_groups"]
            wanted = beta1 if name == "cycle" else 0.9  # AdamW's own, not the warm-up's last
            assert group["betas"] == pytest.approx((wanted, 0.999), abs=1e-9)
            assert {one["step"].item() for one in found["state"].values()} == {4 + step}


OTHER_VALUES = {
    "lr_div_factor": 10.0,
    "lr_final_div_factor": 10.0,
    "lr_pct_start": 0.5,
    "lr_anneal": "linear",
    "lr_cycle_beta1": False,
}


@pytest.mark.parametrize("name", ONE_CYCLE_SETTINGS)
def test_what_is_of_a_cycle_is_refused_without_one(name: str) -> None:
    with pytest.raises(
        InputError, match=f"--{name} has no effect without --lr_scheduler one_cycle"
    ):
        settings(**{name: OTHER_VALUES[name]})
    settings(**{name: OTHER_VALUES[name], "lr_scheduler": "one_cycle"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr_warmup_steps": 5}, "--lr_warmup_steps has no effect with one_cycle"),
        ({"lr_div_factor": 0.0}, "--lr_div_factor 0.0: expected more than 0"),
        ({"lr_final_div_factor": -1.0}, "--lr_final_div_factor -1.0: expected more than 0"),
        ({"lr_pct_start": 1.5}, "--lr_pct_start 1.5: expected 0 to 1"),
        ({"max_grad_norm": -1.0}, "--max_grad_norm -1.0: expected at least 0"),
    ],
)
def test_wrong_numbers_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(lr_scheduler="one_cycle", **wrong)


def test_cards_tell_of_a_cycle_only_where_there_is_one(
    train: Callable[..., Path], cycled: Path
) -> None:
    assert "lr_pct_start" in (cycled / "pipeline/README.md").read_text()
    assert "lr_pct_start" not in (train() / "pipeline/README.md").read_text()


# --- clipping ---


def test_a_norm_of_zero_does_not_clip(train: Callable[..., Path]) -> None:
    moments = []
    for norm in (0, 1e9, 1e-3):
        state = optimizer_state(train("--max_grad_norm", norm), 1)["state"]
        moments.append(torch.cat([one["exp_avg"].flatten() for one in state.values()]))
    assert torch.equal(moments[0], moments[1])
    assert moments[0].norm() > 10 * moments[2].norm() > 0
