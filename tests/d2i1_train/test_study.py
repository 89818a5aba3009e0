"""A study: every arm with every seed, once, in one table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from d2i1_data.sources import open_rows
from d2i1_train.scratch import generation
from d2i1_train.study import training_mean
from d2i1_train.study.tables import with_error
from d2i1_train.study.training_mean import FILE

Command = Callable[..., str]
NONE = "\N{EN DASH}"


@pytest.fixture
def plan(tiny_base: Path, tmp_path: Path) -> Path:
    common = {"source": "rooms:train", "base": str(tiny_base), "host": "light", "width": 16}
    common |= {"tasks": "depth", "max_train_samples": 2, "max_train_steps": 1, "resolution": "32"}
    lora = {"train_unet": "lora", "rank": 2}
    arms = {"frozen": {"warm_up": {"best_metric": None}}, "lora": {"warm_up": lora}}
    settings = {"common": {"warm_up": common}, "arms": arms, "seeds": [0, 1], "test_samples": 2}
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
    for name, seeds in rows.items():
        one, other = (row["scores"]["theta"]["1"]["depth"]["abs_rel"] for row in seeds)
        assert one != other
        values = with_error([one, other])
        line = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
        assert values in line and "±" in values
        assert {"frechet_at_0.6", "probe_at_1_guidance_1"} <= seeds[0]["other"].keys()
        assert (tmp_path / "study" / name / "seed-0" / "created.png").is_file()

    arm = tmp_path / "study/lora/seed-1"
    trained = list((tmp_path / "study/warm-ups").glob("*/seed-*/run.json"))
    kept = [file.stat().st_mtime_ns for file in trained]
    (arm / "study.json").unlink()  # stopped in the midst of this arm
    d2i1("study", "--config", plan, "--output_dir", tmp_path / "study")
    again = json.loads((arm / "study.json").read_text())
    assert again["scores"] == rows["lora"][1]["scores"]
    assert again["other"] == rows["lora"][1]["other"]
    assert [file.stat().st_mtime_ns for file in trained] == kept and len(kept) == 4


def cells(table: str) -> dict[str, dict[str, str]]:
    """Line -> column -> what stands there."""
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    names = [name.strip() for name in lines[0][1:]]
    return {
        line[0].strip(): dict(zip(names, (cell.strip() for cell in line[1:]), strict=True))
        for line in lines[2:]
    }


def targets(spec: str, name: str, count: int) -> np.ndarray:
    rows = open_rows(spec, None, count)
    return np.stack([sample.targets[name] for sample in rows.samples()])


def change(plan: Path, common: dict[str, Any], **settings: Any) -> None:
    """Write the plan anew, for figures alone."""
    old = yaml.safe_load(plan.read_text())
    new = {**old, "seeds": [0], "generation_samples": 0, **settings}
    old["common"]["warm_up"] |= common
    plan.write_text(yaml.safe_dump({**new, "common": old["common"]}))


def test_arms_of_other_tasks_beside_the_training_mean(
    d2i1: Command, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"far": {"tasks": "depth"}, "rest": {"tasks": "normals,semseg"}}
    arms = {name: {"warm_up": own} for name, own in arms.items()}
    change(plan, {"max_train_samples": 5}, arms=arms)
    command = ("study", "--config", plan, "--output_dir", tmp_path / "study")
    table = cells(d2i1(*command))
    assert list(table) == ["training mean", "far", "rest"]
    columns = ["depth rmse", "depth abs_rel", "depth delta1", "normals mean", "normals median"]
    columns += ["normals rmse", "normals under_11.25", "normals under_22.5", "normals under_30"]
    later = ["depth ause", "normals ause", "semseg ause"]
    assert list(table["far"]) == [*columns, "semseg miou", "seconds", *later]
    known = {line: {k for k, cell in row.items() if cell != NONE} for line, row in table.items()}
    assert known["training mean"] == {*columns, "semseg miou"}
    assert known["far"] == {*columns[:3], "seconds", "depth ause"}
    assert known["rest"] == {*columns[3:], "semseg miou", "seconds", *later[1:]}
    curves = json.loads((tmp_path / "study/far/seed-0/sparsification.json").read_text())
    assert table["far"]["depth ause"] == f"{curves['depth']['ause']:.4g}"
    assert (tmp_path / "study/sparsification.png").stat().st_size > 10_000

    found = table["training mean"]  # of rooms, in which every pixel is known
    mean = np.exp(np.log(targets("rooms:train", "depth", 5).astype(np.float64)).mean(0))
    test = targets("rooms:test", "depth", 2)
    assert float(found["depth abs_rel"]) == pytest.approx(
        (abs(mean - test) / test).mean(), rel=1e-3
    )
    rmse = np.sqrt(((mean - test) ** 2).mean())
    assert float(found["depth rmse"]) == pytest.approx(rmse, rel=1e-3)
    mean = targets("rooms:train", "normals", 5).sum(0)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    cosine = (mean * targets("rooms:test", "normals", 2)).sum(-1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()
    assert float(found["normals mean"]) == pytest.approx(angle, rel=1e-2)

    file = tmp_path / "study" / FILE
    stored = file.read_text()
    assert list(json.loads(stored)) == ["training mean"]
    monkeypatch.setattr(training_mean, "averages", None)  # what calls it again fails
    assert cells(d2i1(*command)) == table and file.read_text() == stored
    monkeypatch.undo()
    file.write_text(stored.replace('"test_samples": 2', '"test_samples": 9'))
    assert cells(d2i1(*command)) == table and file.read_text() == stored


def test_arms_of_other_rows_have_their_own_training_mean(
    d2i1: Command, plan: Path, tmp_path: Path
) -> None:
    arms = {"few": {}, "lora": {"train_unet": "lora"}, "one": {"max_train_samples": 1}}
    arms = {name: {"warm_up": own} for name, own in arms.items()}
    change(plan, {}, arms=arms)
    table = cells(d2i1("study", "--config", plan, "--output_dir", tmp_path / "study"))
    means = ["training mean of few, lora", "training mean of one"]
    assert list(table) == [*means, *arms]
    train, test = (targets(f"rooms:{split}", "depth", 2) for split in ("train", "test"))
    single = targets("rooms:train", "depth", 1)[0]
    for line, mean in zip(means, (np.sqrt(train[0] * train[1]), single), strict=True):
        expected = (abs(mean - test) / test).mean()
        assert float(table[line]["depth abs_rel"]) == pytest.approx(expected, rel=1e-3)


def test_classes_of_the_test_source_are_those_of_the_training_rows(
    d2i1: Command, plan: Path, photos: Path, tmp_path: Path
) -> None:
    change(plan, {"tasks": "semseg"}, test=f"folder:{photos}")
    message = d2i1("study", "--config", plan, "--output_dir", tmp_path / "out", code=2)
    assert "semseg: the source photos has other classes than the source rooms" in message
    assert not (tmp_path / "out").exists()


def test_mean_where_nothing_is_known_is_that_of_the_other_pixels(photos: Path) -> None:
    for n in range(6):  # no row knows this corner; the last is half as large
        shrunk = 2 if n == 5 else 1
        for part, (width, height) in (("image", (20, 14)), ("label", (40, 28))):
            file = photos.parent / part / f"{n}.png"
            pixels = np.array(Image.open(file))
            if part == "label":
                pixels[:8, :8] = 3
            small = Image.fromarray(pixels).resize((width // shrunk, height // shrunk), 0)
            small.save(file)
    rows = open_rows(f"folder:{photos}")
    task = rows.source.tasks["semseg"]
    mean = training_mean.averages(rows, {"semseg": task})["semseg"]
    assert mean.shape == (1, 1, 14, 20) and mean.max() < 3
    corner, rest = mean[0, 0, :4, :4], torch.ones(14, 20, dtype=torch.bool)
    rest[:4, :4] = False
    assert (corner == mean[0, 0][rest].bincount().argmax()).all()


@pytest.mark.parametrize(
    ("own", "wrong"),
    [({"seed": 3}, "seed cannot be set"), ({"ranks": 3}, "did you mean --rank?")],
)
def test_what_an_arm_cannot_set(
    d2i1: Command, plan: Path, tmp_path: Path, own: dict[str, int], wrong: str
) -> None:
    settings = yaml.safe_load(plan.read_text())
    plan.write_text(yaml.safe_dump({**settings, "arms": {"one": {"warm_up": own}}}))
    assert wrong in d2i1("study", "--config", plan, "--output_dir", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_standard_error() -> None:
    values = [7.50, 7.61, 7.72, 7.40]
    shown = with_error(values)
    mean, _, error = shown.partition(" ± ")
    assert float(mean) == pytest.approx(np.mean(values), abs=5e-3)
    assert float(error) == pytest.approx(np.std(values, ddof=1) / 2, abs=5e-3)
    assert with_error([0.25]) == "0.25" and with_error([1.0, 1.0]) == "1.000 ± 0.000"
