"""A study: every arm with every seed, once, in one table."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from d2i1_train.base import generation
from d2i1_train.study import with_error

Command = Callable[..., str]


@pytest.fixture
def plan(tiny_base: Path, tmp_path: Path) -> Path:
    common = {"source": "rooms:train", "base": str(tiny_base), "host": "light", "width": 16}
    common |= {"tasks": "depth", "max_train_samples": 2, "max_train_steps": 1, "resolution": "32"}
    arms = {"frozen": {"best_metric": None}, "lora": {"train_unet": "lora", "rank": 2}}
    settings = {"common": common, "arms": arms, "seeds": [0, 1], "test_samples": 2}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**settings, "generation_samples": 4}))
    return tmp_path / "plan.yaml"


def test_every_arm_and_seed_runs_once(
    d2i1: Command, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PROBE_SAMPLES", 64), ("PROBE_STEPS", 2), ("CALLS", 2)):
        monkeypatch.setattr(generation, name, value)
    table = d2i1("study", "--config", plan, "--output_dir", tmp_path / "study")
    rows = {
        name: [
            json.loads((tmp_path / "study" / name / f"seed-{seed}" / "study.json").read_text())
            for seed in (0, 1)
        ]
        for name in ("frozen", "lora")
    }
    for name, (one, other) in rows.items():
        assert one["depth abs_rel"] != other["depth abs_rel"]
        values = with_error([one["depth abs_rel"], other["depth abs_rel"]])
        line = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert values in line and "±" in values
        assert {"frechet_at_0.6", "probe_at_1_guidance_1"} <= one.keys()
        assert (tmp_path / "study" / name / "seed-0" / "created.png").is_file()

    arm = tmp_path / "study/lora/seed-1"
    kept = (tmp_path / "study/lora/seed-0/run.json").stat().st_mtime_ns
    (arm / "study.json").unlink()  # stopped in the midst of this arm
    d2i1("study", "--config", plan, "--output_dir", tmp_path / "study")
    again = json.loads((arm / "study.json").read_text())
    assert {**again, "seconds": 0} == {**rows["lora"][1], "seconds": 0}
    assert (tmp_path / "study/lora/seed-0/run.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("own", "wrong"),
    [({"seed": 3}, "seed cannot be set"), ({"ranks": 3}, "did you mean --rank?")],
)
def test_what_an_arm_cannot_set(
    d2i1: Command, plan: Path, tmp_path: Path, own: dict[str, int], wrong: str
) -> None:
    settings = yaml.safe_load(plan.read_text())
    plan.write_text(yaml.safe_dump({**settings, "arms": {"one": own}}))
    assert wrong in d2i1("study", "--config", plan, "--output_dir", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_standard_error() -> None:
    values = [7.50, 7.61, 7.72, 7.40]
    shown = with_error(values)
    mean, _, error = shown.partition(" ± ")
    assert float(mean) == pytest.approx(np.mean(values), abs=5e-3)
    assert float(error) == pytest.approx(np.std(values, ddof=1) / 2, abs=5e-3)
    assert with_error([0.25]) == "0.25" and with_error([1.0, 1.0]) == "1.000 ± 0.000"
