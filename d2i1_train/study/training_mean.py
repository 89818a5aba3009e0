"""Training mean: a prediction that ignores the image. Studies use its metrics as a reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from d2i1_data.dataset.files import write_json
from d2i1_data.dataset.record import read_json
from d2i1_data.diff2in1.families import Family
from d2i1_data.inspection.evaluation.measure import compute_metrics, table_metrics, truth
from d2i1_data.sources import Rows, agreeing_tasks, open_rows, open_source
from d2i1_data.tasks import Task

from ..settings import WarmUpSettings
from ..warm_up import choose_tasks
from .plan import Cell
from .results import Row
from .settings import StudySettings

NAME = "training mean"
FILE = "training-mean.json"
SIDE = 128  # pixels of the longer side; averages are smooth, and all targets must fit in memory


class RowSelection(NamedTuple):
    """The rows that an arm trains on."""

    source: str
    max_train_samples: int | None
    on_bad_row: str


def training_means(settings: StudySettings, cells: Sequence[Cell]) -> dict[str, list[Row]]:
    """Score the average of the training targets, once for all arms that train on the same rows.

    The results are stored in a file of the study. They are computed again only if rows, tasks or
    test samples have changed.

    Args:
        settings: settings of the study.
        cells: cells of a study of warm-ups. The tasks of their arms are scored.

    Returns:
        Line of the table -> for each seed `TASK METRIC` -> value.
    """
    chosen = settings.subset_seed
    test = open_rows(settings.test, None, settings.test_samples, subset_seed=chosen)
    file = Path(settings.output_dir) / FILE
    stored = read_json(file)
    groups: dict[RowSelection, dict[str, list[WarmUpSettings]]] = {}
    for cell in cells:
        arm = cell.warm_up.settings
        selection = RowSelection(arm.source, arm.max_train_samples, arm.on_bad_row)
        groups.setdefault(selection, {}).setdefault(cell.arm, []).append(arm)
    lines: dict[str, list[dict[str, Any]]] = {}
    for selection, arms in groups.items():
        line = NAME if len(groups) == 1 else f"{NAME} of {', '.join(arms)}"
        tasks = check_tasks([seeds[0] for seeds in arms.values()], settings.test)
        of = {"test": settings.test, "test_samples": settings.test_samples, "tasks": list(tasks)}
        of |= {"test_subset_seed": chosen}
        of |= selection._asdict()
        known = [*stored.get(line, [])]
        lines[line] = []
        for arm in next(iter(arms.values())):
            seed = arm.subset_seed if arm.max_train_samples else 0  # else all seeds have all rows
            own = of | {"subset_seed": seed}
            found = [one for one in known if one["of"] == own]
            if not found:
                source, limit, on_bad_row = selection
                rows = open_rows(source, None, limit, on_bad_row, subset_seed=seed)
                found = [{"of": own, "metrics": score(averages(rows, tasks), tasks, test)}]
                known += found
            lines[line] += found
    if lines != stored:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, lines)
    return {line: [one["metrics"] for one in found] for line, found in lines.items()}


def check_tasks(arms: Sequence[WarmUpSettings], test: str) -> dict[str, Task]:
    """Find the tasks of warm-ups that can be scored.

    Args:
        arms: settings of warm-ups.
        test: the test source.

    Raises:
        InputError: if a host cannot learn its tasks, or the test source has other classes.
    """
    tasks: dict[str, Task] = {}
    for arm in {(arm.source, arm.host, arm.tasks): arm for arm in arms}.values():
        source = open_source(arm.source)
        chosen = choose_tasks(arm.host, arm.tasks, source)
        tasks |= agreeing_tasks(chosen, f"the source {source.name}", open_source(test))
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


def score(means: dict[str, Tensor], tasks: dict[str, Task], test: Rows) -> Row:
    """Score the same prediction for each test sample.

    Args:
        means: task -> prediction `[1, C, H, W]`.
        tasks: the tasks to score.
        test: labelled rows.

    Returns:
        The metrics that tables show, `TASK METRIC` -> value.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in tasks}
    for sample in test.samples():
        for name, task in tasks.items():
            target = truth(sample, task)
            mean = task.family.resize(means[name], sample.size)
            valid = task.family.valid(target) & task.family.valid(mean)
            sums[name].append(task.meter.measure(mean, target, valid))
    return table_metrics(
        tasks, compute_metrics(tasks, {name: torch.cat(s).sum(0) for name, s in sums.items()})
    )
