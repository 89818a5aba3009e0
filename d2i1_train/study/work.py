"""Work of a study: what its processes do. Everything is complete on disk before it is noted."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2i1_data.creation.create import create, import_source, label
from d2i1_data.dataset.files import atomic_file, write_json
from d2i1_data.dataset.record import read_json
from d2i1_data.dataset.schema import read_tasks
from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.inspection.evaluation.measure import Sums, bootstrap, compute_metrics
from d2i1_data.inspection.evaluation.sparsification import Sparsification, curve
from d2i1_data.sources import open_source
from d2i1_data.tasks import Task

from ..loop.reopen import open_theta
from ..scratch.generation import Generation
from ..scratch.vae import save_grid
from ..self_improve import self_improve
from ..warm_up import warm_up
from .plan import WARM_UP, Cell, Work
from .scoring import HeldOut, open_test
from .settings import StudySettings

RESULT = "study.json"
SUMS = "sums.npz"  # sums of each test sample, for the spread over images
SPARSIFICATION = "sparsification.json"
VERSUS = "versus.json"
THETA, THETA_C, THETA_E = "theta", "theta_C", "theta_E"
ROUNDS = 200  # of the bootstrap; they give its spread to 5 %
WRITE: dict[str, Callable[..., Path]] = {"create": create, "label": label, "import": import_source}

Scores = dict[str, dict[str, float]]  # task -> metric -> value


def make(work: Work) -> None:
    """Warm up, or write a created dataset. A warm-up that was stopped starts again at step 0."""
    work.folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    if work.name == WARM_UP:
        shutil.rmtree(work.folder, ignore_errors=True)
        warm_up(work.settings)
    else:  # another dataset can be there if the warm-up was repeated
        WRITE[work.name](replace(work.settings, overwrite=True))
    write_json(work.done, {"seconds": round(time.perf_counter() - start, 1)})


def train(cell: Cell, study: StudySettings) -> None:
    """Train a cell, and score both thetas along the way."""
    settings, test = cell.self_improve, open_test(study.test, study.test_samples, study.subset_seed)
    assert settings is not None
    shutil.rmtree(cell.folder, ignore_errors=True)
    start = time.perf_counter()
    last, every = settings.max_train_steps, study.curve_steps
    scores: dict[str, dict[int, Scores]] = {}
    final: Sums = {}

    def observe(step: int, pipes: Mapping[str, Diff2in1Pipeline]) -> None:
        if step != last and (every == 0 or step % every):
            return
        for theta, pipe in pipes.items():
            sums = test.measure(pipe)
            scores.setdefault(theta, {})[step] = _metrics(test.tasks(pipe), sums)
            if theta == THETA_C:
                final.update(sums)

    self_improve(settings, observe)
    for folder in [cell.folder / "pipeline", *cell.folder.glob("checkpoint-*")]:
        shutil.rmtree(folder)  # a study has many of them, and can train them again
    with atomic_file(cell.folder / SUMS) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {name: one.numpy() for name, one in final.items()}
        np.savez_compressed(file, **arrays)
    _note(cell, study, time.perf_counter() - start, scores)


def score_warm_up(cell: Cell, study: StudySettings, two_stages: bool) -> None:
    """Score a warm-up. In a study of warm-ups this includes uncertainty and generation."""
    shutil.rmtree(cell.folder, ignore_errors=True)
    cell.folder.mkdir(parents=True)
    start, test = time.perf_counter(), open_test(study.test, study.test_samples, study.subset_seed)
    pipe = open_theta(str(cell.warm_up.folder / "pipeline"), "creation")
    pipe = pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    tasks, scores = test.tasks(pipe), dict[str, dict[int, Scores]]()
    if two_stages:
        scores = {THETA: {0: _metrics(tasks, test.measure(pipe))}}
        return _note(cell, study, time.perf_counter() - start, scores)
    seconds = read_json(cell.warm_up.done)["seconds"]
    other = {"seconds": seconds} | _score_uncertainty(cell, pipe, tasks, test, scores)
    if study.generation_samples:
        generation = _open_generation(study.test, study.generation_samples, pipe.stride)
        other |= _score_generation(cell, pipe, generation)
    return _note(cell, study, time.perf_counter() - start, scores, other)


def _score_uncertainty(
    cell: Cell,
    pipe: Diff2in1Pipeline,
    tasks: dict[str, Task],
    test: HeldOut,
    scores: dict[str, dict[int, Scores]],
) -> dict[str, float]:
    """Add the scores of a warm-up, write its curves, and compute the areas between them."""
    sparsification = Sparsification(tasks)
    sums = test.measure(pipe, sparsification)
    scores[THETA] = {cell.warm_up.settings.max_train_steps: _metrics(tasks, sums)}
    curves = {name: curve(sparsification.sums[name]) for name in tasks}
    defined = {name: one._asdict() for name, one in curves.items() if math.isfinite(one.ause)}
    write_json(cell.folder / SPARSIFICATION, defined)
    return {f"{name} ause": one.ause for name, one in curves.items()}


@cache
def _open_generation(test: str, count: int, stride: int) -> Generation:
    """Prepare the scores of generation once per process."""
    return Generation(open_source(test), count, stride)


def _score_generation(
    cell: Cell, pipe: Diff2in1Pipeline, generation: Generation
) -> dict[str, float]:
    """Score images that an arm creates with theta's U-Net. A frozen one is that of the base."""
    varied, images = generation.vary(pipe, "theta")
    invented, imagined = generation.invent(pipe, 1.0, "theta")
    save_grid([generation.images[:8], images[:8], imagined[:8]], cell.folder / "created.png")
    return varied | invented


def compare(cell: Cell, baselines: Sequence[Cell], study: StudySettings) -> None:
    """Compare theta_C of a cell with that of its baselines, over test images (bootstrap)."""
    perception = read_json(cell.warm_up.folder / "pipeline" / "perception" / "config.json")
    tasks = read_tasks(perception["tasks"], "pipeline")
    found = {}
    for baseline in baselines:
        one, other = (_read_sums(folder) for folder in (baseline.folder, cell.folder))
        differences = {name: bootstrap(tasks[name], one[name], other[name], ROUNDS) for name in one}
        found[baseline.arm] = {"of": baseline.facts(study), "differences": differences}
    write_json(cell.folder / VERSUS, found)


def _read_sums(folder: Path) -> Sums:
    with np.load(folder / SUMS) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def _metrics(tasks: dict[str, Task], sums: Sums) -> Scores:
    return compute_metrics(tasks, {name: value.sum(0) for name, value in sums.items()})


def _note(
    cell: Cell,
    study: StudySettings,
    seconds: float,
    scores: Mapping[str, Mapping[int, Scores]],
    other: Mapping[str, float] | None = None,
) -> None:
    """Write the result of a cell, which is then complete."""
    result: dict[str, Any] = {"of": cell.facts(study), "seconds": round(seconds, 1)}
    write_json(cell.folder / RESULT, result | {"scores": scores, "other": other or {}})
