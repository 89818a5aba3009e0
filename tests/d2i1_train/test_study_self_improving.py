"""A study of self-improving: baselines, shared work, pairs with one seed, processes."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.inspection.evaluation.measure import bootstrap, measure
from d2i1_data.sources import open_rows
from d2i1_data.tasks import TASKS
from d2i1_train.arguments import read_settings
from d2i1_train.demo import create_settings, self_improve_settings, warm_up_settings
from d2i1_train.settings import DemoSettings
from d2i1_train.study.cost import describe, make_waves
from d2i1_train.study.curves import mean_curves
from d2i1_train.study.plan import Plan, compared, make_plan
from d2i1_train.study.results import check_results, read_results
from d2i1_train.study.scoring import HeldOut
from d2i1_train.study.settings import StudySettings
from d2i1_train.study.tables import sign_test

Command = Callable[..., str]
ROOMS = {"host": "light", "source": "rooms:train"}
BASELINES = ("real-only", "real-only, dropout")


def test_the_preset_of_the_demo_is_the_demo(tmp_path: Path) -> None:
    study = read_settings(StudySettings, ["--config=study-demo", f"--output_dir={tmp_path}"])
    saving = {"report_to": "", "checkpointing_steps": 0}  # decide no result
    for cell in make_plan(study).cells:
        if cell.created is None or cell.self_improve is None:
            continue
        demo = DemoSettings(seed=cell.seed)
        warmed, created = tmp_path / "warm-up" / "pipeline", tmp_path / "dataset"
        for ours, theirs in (
            (cell.warm_up.settings, warm_up_settings(demo, tmp_path)),
            (cell.created.settings, create_settings(demo, tmp_path, warmed)),
            (
                cell.self_improve,
                self_improve_settings(demo, tmp_path, warmed, str(created), cell.arm),
            ),
        ):
            assert compared(ours) | saving == compared(theirs) | saving
            assert (ours.seed, ours.subset_seed) == (theirs.seed, theirs.subset_seed)
    assert study.test_samples == demo.held_out


@pytest.fixture
def plan(tiny_base: Path, tmp_path: Path) -> Path:
    """Two arms of one warm-up and one created dataset, with two seeds."""
    warm_up = {"source": "rooms:train", "base": str(tiny_base), "host": "light", "width": 16}
    warm_up |= {
        "tasks": "depth,semseg",
        "max_train_samples": 2,
        "max_train_steps": 1,
        "resolution": "32",
    }
    common = {
        "warm_up": warm_up,
        "create": {"num_samples": 2, "num_inference_steps": 1},
        "self_improve": {
            "max_train_steps": 2,
            "real_batch_size": 2,
            "feature_dropout": 0.25,
            "cutmix": 0,
            "real_cutmix": 0,
            "follow_every": 4,
        },
    }
    arms = {
        "recipe": {},
        "plain": {"self_improve": {"feature_dropout": 0, "belief_views": ["image"]}},
    }
    settings = {"common": common, "arms": arms, "seeds": [0, 1], "test_samples": 3}
    settings |= {"curve_steps": 1, "threads": 1, "output_dir": str(tmp_path / "study")}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return tmp_path / "plan.yaml"


def read(plan: Path) -> tuple[StudySettings, Plan]:
    settings = read_settings(StudySettings, [f"--config={plan}"])
    return settings, make_plan(settings)


def change(plan: Path, **settings: Any) -> None:
    plan.write_text(
        yaml.safe_dump({**yaml.safe_load(plan.read_text()), **settings}, sort_keys=False)
    )


def scores(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").open()))


def lines(text: str, start: str) -> list[list[str]]:
    """The lines of tables that begin with a name."""
    found = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [line for line in found if line[0] == start]


def test_both_stages_once_and_again(d2i1: Command, plan: Path, tmp_path: Path) -> None:
    command, folder = ("study", "--config", plan), tmp_path / "study"
    printed = d2i1(*command)
    assert "left to do: 2 of 2 warm-ups, 2 of 2 created datasets," in printed
    assert "8 of 8 trainings; time: unknown before the first" in printed
    # arms share their warm-up and their created dataset
    assert len(list(folder.glob("warm-ups/*/seed-*/pipeline"))) == 2
    assert len(list(folder.glob("created/*/seed-*/data"))) == 2
    shared = json.loads(next(folder.glob("warm-ups/*/settings.json")).read_text())
    assert shared["warm_up"]["max_train_samples"] == 2
    # one score in each line of the CSV file
    tidy = scores(folder)
    keys = [tuple(line[name] for name in list(line)[:-1]) for line in tidy]
    assert len(set(keys)) == len(keys) and all(math.isfinite(float(x["value"])) for x in tidy)
    assert {line["arm"] for line in tidy} == {"warm-up", *BASELINES, "recipe", "plain"}
    trained = {(x["arm"], x["seed"], x["theta"], x["step"]) for x in tidy if x["arm"] != "warm-up"}
    assert len(trained) == 4 * 2 * 2 * 2
    check_paired_table(plan, (folder / "table.md").read_text(), tidy)
    assert (folder / "curves.png").stat().st_size > 10_000
    # results are kept: nothing is computed twice, and what is missing is computed again
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("study.json")}
    old = (folder / "recipe/seed-1/study.json").read_text()
    (folder / "recipe/seed-1/study.json").unlink()
    printed = d2i1(*command)
    assert "0 of 2 warm-ups, 0 of 2 created datasets," in printed
    assert "1 of 8 trainings; time: about" in printed
    after = {file: file.stat().st_mtime_ns for file in folder.rglob("study.json")}
    assert {file for file in after if after[file] != before[file]} == {
        folder / "recipe/seed-1/study.json"
    }
    again = json.loads((folder / "recipe/seed-1/study.json").read_text())
    assert {**again, "seconds": 0} == {**json.loads(old), "seconds": 0}
    assert scores(folder) == tidy
    # another setting of an arm is refused in one line, before anything starts
    content = yaml.safe_load(plan.read_text())
    change(plan, arms={**content["arms"], "recipe": {"self_improve": {"alpha": 0.5}}})
    message = d2i1(*command, code=2)
    assert "recipe/seed-0 holds a result with other settings (self_improve.alpha: auto" in message
    # a baseline with another dropout is computed again
    change(plan, arms={**content["arms"], "more": {"self_improve": {"feature_dropout": 0.75}}})
    settings, wider = read(plan)
    missing = {cell.arm for cell in check_results(wider, settings)}
    assert missing == {"more", "real-only, dropout"}


def check_paired_table(plan: Path, table: str, tidy: list[dict[str, str]]) -> None:
    """Compute a line of the table of differences by hand."""
    value = {
        (x["arm"], x["seed"]): float(x["value"])
        for x in tidy
        if (x["theta"], x["step"], x["metric"]) == ("theta_C", "2", "abs_rel")
    }
    found = {line[1]: line for line in lines(table, "recipe") if line[2:3] == ["depth abs_rel"]}
    assert tuple(found) == BASELINES
    for baseline, line in found.items():
        changes = [value["recipe", seed] - value[baseline, seed] for seed in "01"]
        shown, _, error = line[3].partition(" ± ")
        spread = stdev(changes) / math.sqrt(2)
        assert float(shown) == pytest.approx(mean(changes), abs=spread / 5)
        assert float(error) == pytest.approx(spread, rel=0.1)
        better = sum(change < 0 for change in changes)
        p = sign_test(better, 2 - better)
        assert line[2] == "depth abs_rel" and line[4:6] == [f"{better} of 2", f"{p:.3g}"]
        spreads = [over_images(plan, baseline, seed) for seed in (0, 1)]
        assert float(line[6]) == pytest.approx(mean(spreads), rel=0.06)
    found = [line[1] for line in lines(table, BASELINES[1]) if line[2] == "depth abs_rel"]
    assert found == ["real-only"]


def over_images(plan: Path, baseline: str, seed: int) -> float:
    folder = plan.parent / "study"
    sums = [np.load(folder / arm / f"seed-{seed}" / "sums.npz") for arm in (baseline, "recipe")]
    one, other = (torch.from_numpy(stored["depth"]) for stored in sums)
    return bootstrap(TASKS["depth"], one, other, 200)["abs_rel"]["spread"]


def test_number_of_processes_changes_nothing(d2i1: Command, plan: Path, tmp_path: Path) -> None:
    change(plan, seeds=[0], arms={"recipe": {}})
    d2i1("study", "--config", plan)
    more = ("--workers", 2, "--output_dir", tmp_path / "other")
    d2i1("study", "--config", plan, *more)
    assert scores(tmp_path / "study") == scores(tmp_path / "other")
    d2i1("study", "--config", plan, *more)  # nothing is left to do
    tables = [(tmp_path / name / "table.md").read_text() for name in ("study", "other")]
    assert tables[0] == tables[1]


def test_a_cell_that_fails_loses_nothing(d2i1: Command, plan: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(plan.read_text())
    wrong = {"label": {"source": "rooms:train", "max_source_samples": 1}}
    wrong["self_improve"] = {"min_quality": {"depth.flip": 1.0}}
    change(plan, seeds=[0], arms={"plain": content["arms"]["plain"], "wrong": wrong})
    message = d2i1("study", "--config", plan, code=2)
    assert "error: study: wrong, seed 0: --min_quality" in message.splitlines()[-1]
    done = {file.parent.parent.name for file in (tmp_path / "study").glob("*/seed-0/study.json")}
    assert done == {"warm-up", *BASELINES, "plain"}


def test_arms_with_other_warm_ups_have_their_own_baselines(plan: Path) -> None:
    few = {"warm_up": {"max_train_samples": 1}}
    stored = {"label": {"source": "rooms:val"}, "self_improve": {"created_labels": "stored"}}
    arms = {"all": {}, "few": few, "labelled": stored, "few again": few}
    change(plan, arms=arms)
    settings, found = read(plan)
    names = list(dict.fromkeys(cell.arm for cell in found.cells))
    built_in = [f"{name} of {arm}" for arm in ("all", "few") for name in ("warm-up", *BASELINES)]
    assert names == [*built_in, *arms]
    cells = {cell.arm: cell for cell in found.cells if cell.seed == 1}
    assert cells["few"].warm_up == cells["few again"].warm_up != cells["all"].warm_up
    assert cells["few"].created == cells["few again"].created
    for cell in cells.values():  # the same rows in all parts, chosen by the seed
        assert cell.warm_up.settings.seed == cell.warm_up.settings.subset_seed == 1
        rows = 1 if cell.group == "few" else 2
        if cell.self_improve:
            assert cell.self_improve.max_train_samples == rows
            assert cell.self_improve.subset_seed == 1
        if cell.created and cell.created.name == "create":
            assert cell.created.settings.max_source_samples == rows
            assert cell.created.settings.subset_seed == 1
    assert cells["labelled"].created.name == "label"
    alone, same = (cells[f"{name} of few"].self_improve for name in BASELINES)
    assert alone.created == same.created == "none"
    assert (alone.feature_dropout, alone.real_feature_dropout) == (0, 0)
    assert (same.feature_dropout, same.real_feature_dropout) == (0, 0.25)
    pairs = {cell.arm: [one.arm for one in baselines] for cell, baselines in found.pairs()}
    assert pairs["few"] == ["real-only of few", "real-only, dropout of few"]
    assert "real-only of few" not in pairs
    text = describe(make_waves(found, settings, found.cells), 1)
    assert text.startswith("4 of 4 warm-ups, 6 of 6 created datasets, 4 of 4 scores of warm-ups,")


def test_a_baseline_for_each_perturbation(plan: Path) -> None:
    """Each has on real samples as much as the arms have on created ones, and nothing else."""
    change(plan, seeds=[0], arms={"some": {"self_improve": {"cutmix": 0.5, "real_cutmix": 1}}})
    _, found = read(plan)
    names = ("feature_dropout", "real_feature_dropout", "cutmix", "real_cutmix")
    built_in = {
        cell.arm: [getattr(cell.self_improve, name) for name in names]
        for cell in found.cells
        if cell.built_in and cell.self_improve
    }
    assert built_in == {
        "real-only": [0, 0, 0, 0],
        "real-only, dropout": [0, 0.25, 0, 0],
        "real-only, dropout and CutMix": [0, 0.25, 0, 0.5],
    }


def test_curves_start_with_the_warm_up(d2i1: Command, plan: Path) -> None:
    change(plan, seeds=[0], arms={"plain": {"self_improve": {"feature_dropout": 0}}})
    d2i1("study", "--config", plan)
    _, found = read(plan)
    results = read_results(found)
    curves = mean_curves(results, "depth")
    assert [name for name, _ in curves] == ["real-only"] * 2 + ["plain"] * 2  # no dropout anywhere
    start = results[0].scores["theta"][0]["depth"]["abs_rel"]
    for (arm, theta), curve in curves.items():
        own = next(one for one in results if one.cell.arm == arm).scores[theta]
        assert curve == {0: start, **{n: own[n]["depth"]["abs_rel"] for n in (1, 2)}}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"arms": {"a": {"warmup": {}}}}, "a: unknown part 'warmup', did you mean warm_up?"),
        ({"arms": {"a": {"create": {"strenght": 1}}}}, "a: create: unknown flag --strenght"),
        ({"arms": {"a": {"create": {}, "label": {}}}}, "a: expected one of create and label"),
        ({"arms": {"a": {"self_improve": {"created": "x"}}}}, "created cannot be set for an arm"),
        ({"arms": {"a": {"self_improve": 3}}}, "a: self_improve: expected {SETTING: value}, got 3"),
        ({"arms": {"real-only": {}}}, "an arm cannot be called 'real-only', which is built in"),
        ({"arms": {"../a": {}}}, "an arm cannot be called '../a'"),
        ({"seeds": [1, 1]}, "--seeds [1, 1]: expected different seeds"),
        ({"common": {"warm_up": ROOMS, "create": {}}, "arms": {"a": {}}}, "a: create needs self_"),
        ({"common": {"warm_up": ROOMS}}, "recipe: no self_improve, but other arms have it"),
    ],
)
def test_wrong_plans(
    d2i1: Command, plan: Path, tmp_path: Path, changes: dict[str, Any], wrong: str
) -> None:
    change(plan, **changes)
    message = d2i1("study", "--config", plan, code=2)
    assert wrong in message and message.count("\n") == 1
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("resolution", [None, 48])
def test_scores_from_kept_pyramids(tiny_pipe: Diff2in1Pipeline, resolution: int | None) -> None:
    tiny_pipe.register_to_config(default_processing_resolution=resolution)
    test = HeldOut("rooms:test", 9)
    kept = test.measure(tiny_pipe)
    again = test.measure(tiny_pipe)  # reads no image
    rows = open_rows("rooms:test", None, 9)
    plain = measure(tiny_pipe, rows.samples(), test.tasks(tiny_pipe))
    for name, sums in plain.items():
        for one in (kept, again):
            found = TASKS[name].meter.with_classes(int(sums.shape[1] ** 0.5)).summary
            for metric, value in found(sums.sum(0)).items():
                assert found(one[name].sum(0))[metric] == pytest.approx(value, abs=1e-6), metric
    assert len(test.walked) == 1


def test_sign_test() -> None:
    assert sign_test(5, 0) == sign_test(0, 5) == 0.0625
    assert sign_test(4, 1) == 0.375 and sign_test(3, 0) == 0.25
    assert sign_test(2, 2) == sign_test(0, 0) == 1
