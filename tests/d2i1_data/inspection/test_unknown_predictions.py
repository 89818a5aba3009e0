"""What a model predicts as NaN counts as wrong, and never gets into JSON."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from d2i1_data.dataset.files import write_json
from d2i1_data.diff2in1.saving import HASHES
from d2i1_data.inspection.evaluation.measure import compute_metrics, measure_outputs, truth
from d2i1_data.inspection.evaluation.sparsification import Sparsification, curve
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import EDGES

# the metrics if every pixel is wrong
WORST = {
    "normals": {"mean": 180, "median": 180, "rmse": 180, "under_30": 0},
    "depth": {"abs_rel": 1, "delta1": 0, "delta3": 0},
    "semseg": {"miou": 0, "accuracy": 0},
    "saliency": {"mae": 1},
    "edges": {},
}


@pytest.mark.parametrize("name", WORST)
def test_nan_counts_as_wrong(name: str) -> None:
    task, sample = Rooms.tasks.get(name, EDGES), Rooms("train", (16, 16))[0]
    sample = replace(sample, targets={**sample.targets, "edges": sample.targets["saliency"]})
    target = truth(sample, task)[0]
    raw = torch.full((1, task.family.raw_channels, *sample.size), math.nan)
    finished, unsure = task.family.finish(raw)[0], torch.full((1, *sample.size), math.nan)
    half = torch.where(torch.arange(16) < 8, target, finished)
    infinite = torch.full(target.shape, math.inf) if target.is_floating_point() else finished
    found = {}
    for kind, predicted in {"nan": finished, "inf": infinite, "half": half, "true": target}.items():
        curves = Sparsification([name])
        outputs = iter([([sample], {name: [predicted]}, {name: [unsure]})])
        sums = measure_outputs(outputs, {name: task}, sparsification=curves)
        found[kind] = compute_metrics({name: task}, {name: sums[name].sum(0)})[name]
        assert all(map(math.isfinite, found[kind].values())), found[kind]
        assert math.isfinite(curve(curves.sums[name]).ause)
    for kind in ("nan", "inf"):
        worst = {metric: found[kind][metric] for metric in WORST[name]}
        assert worst == pytest.approx(WORST[name], abs=0.01)
    sign = 1 if task.meter.higher_is_better(task.meter.headline) else -1
    nan, half, true = (sign * found[k][task.meter.headline] for k in ("nan", "half", "true"))
    assert nan < true and half < true


def test_a_pipeline_of_nan_is_scored_as_wrong(
    pipeline: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    """An earlier version published such pipelines, with a median error of 0.005 degrees."""
    broken, out = (
        shutil.copytree(pipeline, tmp_path / "broken", ignore=shutil.ignore_patterns(HASHES)),
        tmp_path / "out.json",
    )
    (file,) = (broken / "perception").glob("*.safetensors")
    nan = {name: torch.full_like(tensor, math.nan) for name, tensor in load_file(file).items()}
    save_file(nan, file, {"format": "pt"})
    source = ("--source", "rooms:test", "--max_samples", 2, "--processing_resolution", 32)
    curves = ("--sparsification", tmp_path / "curves.png", "--output_file", out)
    d2i1("evaluate", "--pipeline", broken, *source, *curves)
    results = json.loads(out.read_text(), parse_constant=pytest.fail)
    assert results["tasks"]["normals"]["median"] == pytest.approx(180, abs=0.01)
    assert results["tasks"]["depth"]["abs_rel"] == pytest.approx(1)
    assert results["tasks"]["semseg"]["miou"] == 0


def test_json_holds_no_nan(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [1.5, -math.inf], "c": {"d": math.inf, "e": None, "f": 2}}
    write_json(tmp_path / "file.json", content)
    found = json.loads((tmp_path / "file.json").read_text(), parse_constant=pytest.fail)
    assert found == {"b": [1.5, None], "c": {"e": None, "f": 2}}
