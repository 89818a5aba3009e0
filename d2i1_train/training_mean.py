"""Training mean: a prediction that ignores the image. Studies use its metrics as a reference."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from d2i1_data.dataset.files import write_json
from d2i1_data.diff2in1.families import Family
from d2i1_data.inspection.evaluation.measure import compute_metrics, table_metrics, truth
from d2i1_data.sources import Rows, Source, agreeing_tasks, open_rows, open_source
from d2i1_data.tasks import Task

from .settings import StudySettings, WarmUpSettings
from .warm_up import choose_tasks

NAME = "training mean"
FILE = "training-mean.json"
SIDE = 128  # pixels of the longer side; averages are smooth, and all targets must fit in memory


class RowSelection(NamedTuple):
    """The rows that an arm trains on."""

    source: str
    max_train_samples: int | None
    on_bad_row: str
    subset_seed: int | None


def training_means(
    settings: StudySettings, arms: dict[str, WarmUpSettings]
) -> dict[str, dict[str, float]]:
    """Score the average of the training targets, once for all arms that train on the same rows.

    The results are stored in a file of the study. They are computed again only if rows, tasks or
    test samples have changed.

    Args:
        settings: settings of the study.
        arms: settings of the warm-up of each arm. The tasks of the arm are scored.

    Returns:
        Line of the table -> `TASK METRIC` -> value.
    """
    file, test = Path(settings.output_dir) / FILE, open_source(settings.test)
    stored = json.loads(file.read_text()) if file.is_file() else {}
    groups: dict[RowSelection, list[str]] = {}
    for name, arm in arms.items():
        limit, skips, seed = arm.max_train_samples, arm.on_bad_row, arm.subset_seed
        selection = RowSelection(arm.source, limit, skips, seed)
        groups.setdefault(selection, []).append(name)
    lines: dict[str, dict[str, Any]] = {}
    for selection, names in groups.items():
        line = NAME if len(groups) == 1 else f"{NAME} of {', '.join(names)}"
        tasks = _tasks([arms[name] for name in names], test)
        of = {"test": settings.test, "test_samples": settings.test_samples, "tasks": list(tasks)}
        of |= {"test_subset_seed": settings.subset_seed, **selection._asdict()}
        lines[line] = stored.get(line, {})
        if lines[line].get("of") != of:
            source, limit, on_bad_row, seed = selection
            rows = open_rows(source, None, limit, on_bad_row, subset_seed=seed)
            scored = test.usable_rows(settings.test_samples, subset_seed=settings.subset_seed)
            metrics = score(averages(rows, tasks), tasks, scored)
            lines[line] = {"of": of, "metrics": metrics}
    if lines != stored:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, lines)
    return {line: content["metrics"] for line, content in lines.items()}


def _tasks(arms: list[WarmUpSettings], test: Source) -> dict[str, Task]:
    """The tasks of arms that train on one source."""
    source = open_source(arms[0].source)
    tasks: dict[str, Task] = {}
    for arm in arms:
        chosen = choose_tasks(arm.host, arm.tasks, source)
        tasks |= agreeing_tasks(chosen, f"the source {source.name}", test)
    return tasks


def averages(rows: Rows, tasks: dict[str, Task]) -> dict[str, Tensor]:
    """Average the targets of each task at each pixel.

    A pixel without any known target gets the average of the other pixels.

    Args:
        rows: the training rows.
        tasks: the tasks to average.

    Returns:
        Task -> map `[1, C, H, W]`. The longer side has at most 128 pixels.
    """
    targets: dict[str, list[Tensor]] = {name: [] for name in tasks}
    size: tuple[int, int] | None = None
    for sample in tqdm(rows.samples(), NAME, len(rows.usable), unit="image", leave=False):
        size = size or _at_most(sample.size, SIDE)
        for name, task in tasks.items():
            targets[name].append(task.family.resize(truth(sample, task), size))
    return {
        name: _filled(task.family, task.family.average(torch.cat(targets[name])))
        for name, task in tasks.items()
    }


def _at_most(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _filled(family: Family, mean: Tensor) -> Tensor:
    everywhere = family.average(mean.flatten(1).T[..., None, None])  # each pixel as a map
    return torch.where(family.valid(mean[None]), mean, everywhere)


def score(means: dict[str, Tensor], tasks: dict[str, Task], rows: Rows) -> dict[str, float]:
    """Score the same prediction for each test sample.

    Args:
        means: task -> prediction `[1, C, H, W]`.
        tasks: the tasks to score.
        rows: the test samples.

    Returns:
        The metrics that tables show, `TASK METRIC` -> value.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in tasks}
    for sample in rows.samples():
        for name, task in tasks.items():
            target = truth(sample, task)
            mean = task.family.resize(means[name], sample.size)
            valid = task.family.valid(target) & task.family.valid(mean)
            sums[name].append(task.meter.measure(mean, target, valid))
    return table_metrics(
        tasks, compute_metrics(tasks, {name: torch.cat(s).sum(0) for name, s in sums.items()})
    )
